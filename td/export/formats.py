"""Networks as functions of what a file takes, written as StableHLO, safetensors and ONNX, and opened again."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import lax
from jaxtyping import Array

from td import _tree, models
from td.compact import apply_plan, compact
from td.data import standardize
from td.errors import UserError, check_choice
from td.io.files import read_json
from td.models.transformer import Cache
from td.program.equations import Program
from td.program.flops import count_flops
from td.program.trace import trace

LOG = logging.getLogger(__name__)

VERSION = 1
"""Layout of `model.json`."""

BATCH = 2
"""Batch of the example inputs; with more than one row compaction cannot take the batch for a constant axis."""

PACKAGES = {"onnx": ("jax2onnx", "onnx", "onnxruntime"), "stablehlo": ("flatbuffers",), "safetensors": ("safetensors",)}
"""Packages that each format needs."""

Call = Callable[..., list[np.ndarray]]
"""An opened file: `(*inputs) -> outputs`."""


class Part(NamedTuple):
    """A function to export."""

    apply: Callable[..., Any]  # `(variables, *inputs of the network) -> outputs`
    inputs: dict[str, jax.ShapeDtypeStruct]  # of the file, by name, with the batch of an example
    outputs: tuple[str, ...]
    prepare: Callable[..., tuple[Any, ...]] = lambda *inputs: inputs  # inputs of the file -> of the network

    def on_file_inputs(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """Prepare the inputs of a function that takes those of the network."""
        return lambda params, *inputs: apply(params, *self.prepare(*inputs))

    def with_batch(self, batch: Any) -> list[jax.ShapeDtypeStruct]:
        """Return the inputs with a batch of another size."""
        return [jax.ShapeDtypeStruct((batch, *i.shape[1:]) if i.shape else (), i.dtype) for i in self.inputs.values()]


class Network(NamedTuple):
    """A part with its parameters."""

    apply: Callable[..., Any]  # `(params, *inputs of the file) -> outputs`
    params: Any
    flops: int  # of one example
    plan: dict[str, Any] | None = None  # of the compaction


def parse_formats(text: str) -> list[str]:
    """Read the names of formats; raises UserError for an unknown name or a missing package."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check_choice("format", name, PACKAGES)
        missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(f"format {name} needs {', '.join(missing)}: pip install '.[export]'")
    return names


def evaluate(
    program: Program, params: Any, inputs: Any, rewrites: Mapping[str, Callable[..., Array | None]] | None = None
) -> list[Array]:
    """Run a program; `rewrites` computes a primitive from its params and operands, or returns None to keep it."""
    known = {**program.numbers, **dict(zip(program.leaves, jax.tree.leaves(params), strict=True))}
    known |= dict(zip(program.inputs, jax.tree.leaves(inputs), strict=True))
    for equation in program.equations:
        operands, rewrite = [known[value] for value in equation.inputs], (rewrites or {}).get(equation.name)
        found = rewrite(equation.params, *operands) if rewrite else None
        found = equation.bind(*operands, **equation.params) if found is None else found
        known.update(zip(equation.outputs, found if isinstance(found, list | tuple) else [found], strict=True))
    return [known[value] for value in program.outputs]


def any_batch(network: Network, part: Part) -> tuple[Program, list[jax.ShapeDtypeStruct]]:
    """Trace a network at a batch of any size, with its parameters as constants."""
    inputs = part.with_batch(*jax.export.symbolic_shape("batch"))
    return trace(lambda _, *inputs: network.apply(network.params, *inputs), (), inputs, plain=True), inputs


def to_stablehlo(network: Network, part: Part) -> bytes:
    """Lower a network for every platform by `jax.export`."""
    program, inputs = any_batch(network, part)
    call = jax.jit(lambda *inputs: tuple(evaluate(program, (), inputs)))
    return bytes(jax.export.export(call, platforms=("cpu", "cuda", "tpu"))(*inputs).serialize())


def open_stablehlo(data: bytes) -> Call:
    """Read a function back."""
    call = jax.export.deserialize(bytearray(data)).call
    return lambda *inputs: [np.asarray(output) for output in call(*inputs)]


def to_safetensors(variables: Any) -> bytes:
    """Store all variables by name, zeros included."""
    from safetensors.numpy import save

    return save({path: np.asarray(leaf) for path, leaf in _tree.named_leaves(variables).items()})


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read variables back as nested dicts."""
    parse_formats("safetensors")
    from safetensors.numpy import load_file

    named = {name: jax.numpy.asarray(array) for name, array in load_file(path).items()}
    return traverse_util.unflatten_dict(named, sep="/")


def to_onnx(network: Network, part: Part, name: str, metadata: Mapping[str, str]) -> bytes:
    """Write a network with named inputs and outputs."""
    # Traced here: jax2onnx replaces functions of Flax while it traces, and compaction would not recognise them.
    program, inputs = any_batch(network, part)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jax2onnx
        import onnx

        model = jax2onnx.to_onnx(
            lambda *inputs: evaluate(program, (), inputs, {"reduce_window_max": _max_pool, "pad": _pad}),
            inputs,
            model_name=name,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
        )
        # Shapes of intermediate values, which ONNX Runtime infers; some are of another memory layout.
        del model.graph.value_info[:]
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def open_onnx(data: bytes) -> Call:
    """Read a function back, for ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))


def _max_pool(params: Mapping[str, Any], images: Array) -> Array | None:
    """Pool over two axes by Flax's function: from the primitive jax2onnx makes a pooling over four, which ORT lacks."""
    window, strides, padding = (params[name] for name in ("window_dimensions", "window_strides", "padding"))
    outer = [(window[axis], strides[axis], *padding[axis]) for axis in (0, -1)]
    if len(window) != 4 or outer != [(1, 1, 0, 0)] * 2 or {*params["base_dilation"], *params["window_dilation"]} != {1}:
        return None
    bordered = _with_borders(images, -jnp.inf, padding)  # jax2onnx knows "VALID" and "SAME" alone
    return nn.max_pool(bordered, window_shape=window[1:3], strides=strides[1:3], padding="VALID")


def _pad(params: Mapping[str, Any], array: Array, value: Array) -> Array | None:
    """Pad by concatenation: jax2onnx pads no batch of unknown size."""
    widths = params["padding_config"]
    plain = all(low >= 0 and high >= 0 and inner == 0 for low, high, inner in widths)
    return _with_borders(array, value, [width[:2] for width in widths]) if plain else None


def _with_borders(array: Array, value: Any, padding: Sequence[Any]) -> Array:
    for axis, widths in enumerate(padding):
        borders = [[width if a == axis else size for a, size in enumerate(array.shape)] for width in widths]
        low, high = (lax.broadcast(jnp.asarray(value, array.dtype), shape) for shape in borders)
        parts = [part for part, wanted in zip((low, array, high), (widths[0], True, widths[1]), strict=True) if wanted]
        array = lax.concatenate(parts, axis) if len(parts) > 1 else array
    return array


class Exported(NamedTuple):
    """A network that was exported."""

    apply: Callable[..., Any]  # `(params, *inputs) -> outputs`, jitted
    params: Any  # trainable as any tree; smaller where units were removed
    about: dict[str, Any]  # the contents of `model.json`: config, class names, accuracy, provenance


def load_exported(folder: Path | str, part: str = "") -> Exported:
    """Load an export. A Transformer has two parts, "encoder" (the default) and "decoder"."""
    path = Path(folder) / "model.json"
    about = read_json(path)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise UserError(f"cannot read {path}: it is not an export, or one of a newer version of td")
    if not path.with_name("model.safetensors").is_file():
        raise UserError(f"{folder} has no model.safetensors: export again, with --format=safetensors")
    parts = parts_of(build_float32(about["config"]["model"], about["num_classes"]), about["task"])
    name = part or next(iter(parts))
    check_choice("part", name, parts)
    variables = read_safetensors(path.with_name("model.safetensors"))
    plan, round_to = about["plans"][name], about["pruning"]["round_to"]
    network = whole(parts[name], variables) if plan is None else compacted(parts[name], variables, round_to, plan)
    return Exported(jax.jit(network.apply), network.params, about)


def build_float32(settings: Mapping[str, Any], num_classes: int) -> Any:
    """Build a model that computes in float32: not every runtime has other types."""
    return models.build({**settings, **({"dtype": "float32"} if "dtype" in settings else {})}, num_classes)


def parts_of(model: Any, task: Mapping[str, Any]) -> dict[str, Part]:
    """Return the functions of a network: one for images; encoder and one decoding step of a Transformer."""
    if task["name"] == "translation":
        return _transformer(model, task["source_length"], task["target_length"])
    raw = task["images"] == "raw"
    images = jax.ShapeDtypeStruct((BATCH, *task["shape"]), jnp.uint8 if raw else jnp.float32)
    prepare = (lambda images: (standardize(images),)) if raw else (lambda images: (images,))
    return {"model": Part(model.apply, {"images": images}, ("logits",), prepare)}


def _transformer(model: Any, source_length: int, target_length: int) -> dict[str, Part]:
    def shape(*sizes: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype)

    def encode(variables: Any, source: Array) -> Any:
        return model.apply(variables, source, method="encode")

    def decode(variables: Any, token: Array, position: Array, memory: Array, source: Array, *flat: Array) -> Any:
        caches = tuple(Cache(*pair) for pair in zip(flat[::2], flat[1::2], strict=True))
        logits, after = model.apply(variables, token, position, caches, memory, source, method="decode_next")
        return (logits, *jax.tree.leaves(after))

    source, memory = shape(BATCH, source_length), shape(BATCH, source_length, model.width, dtype=jnp.float32)
    cache = shape(BATCH, target_length, model.heads, model.width // model.heads, dtype=jnp.float32)
    names = [f"{what}_{layer}" for layer in range(model.layers) for what in ("keys", "values")]
    inputs = {"token": shape(BATCH), "position": shape(), "memory": memory, "source": source}
    outputs = ("logits", *(f"{name}_after" for name in names))
    decoder = Part(decode, inputs | dict.fromkeys(names, cache), outputs)
    return {"encoder": Part(encode, {"source": source}, ("memory",)), "decoder": decoder}


def whole(part: Part, variables: Any) -> Network:
    """Keep the zeros."""
    apply = part.on_file_inputs(part.apply)
    return Network(apply, variables, count_flops(apply, variables, *part.inputs.values()) // BATCH)


def compacted(part: Part, variables: Any, round_to: int = 1, plan: Mapping[str, Any] | None = None) -> Network:
    """Remove the units that pruning emptied, by a plan if there is one."""
    inputs = jax.eval_shape(part.prepare, *part.inputs.values())
    try:
        small = apply_plan(part.apply, variables, dict(plan), *inputs) if plan else None
    except UserError as error:  # JAX has renamed an operation since
        LOG.warning("the plan of compaction does not apply (%s): compacting again", error)
        small = None
    small = small or compact(part.apply, variables, *inputs, round_to=round_to)
    return Network(part.on_file_inputs(small.apply), small.params, small.flops[1] // BATCH, small.plan)
