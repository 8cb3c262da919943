"""Networks as StableHLO, safetensors and ONNX: written and opened again."""

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

from td import _tree
from td.compact.program import Program
from td.compact.trace import trace
from td.errors import UserError, check_choice

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
