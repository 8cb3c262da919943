"""Formats of exported functions: ONNX, StableHLO and safetensors, written and opened again."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax

from td import _tree
from td.errors import UserError, check_choice
from td.program.equations import Program
from td.program.simplify import is_symbolic, on_device
from td.program.trace import trace

Call = Callable[..., list[np.ndarray]]
"""An opened file: `(*inputs) -> outputs`."""

Shapes = Sequence[jax.ShapeDtypeStruct]
"""Inputs of a file; the batch may be symbolic."""


class Function(NamedTuple):
    """A function to export, and what an ONNX file says of it."""

    apply: Callable[..., Sequence[Any]]  # `(params, *inputs) -> outputs`, both flat
    params: Any
    name: str
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    metadata: Mapping[str, str] = {}


class Format(NamedTuple):
    """A kind of file."""

    packages: tuple[str, ...]  # that it needs
    write: Callable[[Function, Shapes], bytes]
    open: Callable[[bytes, Any], Call]  # `(data, function)`, of which safetensors alone needs the function


def check_formats(formats: str | Iterable[str]) -> list[str]:
    """Read the names of formats; raises UserError for an unknown name or a missing package."""
    names = [name.strip() for name in (formats.split(",") if isinstance(formats, str) else formats)]
    for name in names:
        check_choice("format", name, FORMATS)
        missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(f"format {name} needs {', '.join(missing)}: pip install '.[export]'")
    return names


def to_stablehlo(function: Function, inputs: Shapes) -> bytes:
    """Lower a function for every platform by `jax.export`."""
    call = jax.jit(lambda *inputs: tuple(function.apply(function.params, *inputs)))
    return bytes(jax.export.export(call, platforms=("cpu", "cuda", "tpu"))(*inputs).serialize())


def open_stablehlo(data: bytes) -> Call:
    """Read a function back."""
    call = jax.export.deserialize(bytearray(data)).call
    return lambda *inputs: [np.asarray(output) for output in call(*inputs)]


def to_safetensors(params: Any) -> bytes:
    """Store all parameters by name, zeros included."""
    from safetensors.numpy import save

    return save({path: np.asarray(leaf) for path, leaf in _tree.named_leaves(params).items()})


def open_safetensors(data: bytes, function: Function) -> Call:
    """Give a function the parameters that were stored."""
    from safetensors.numpy import load

    found, structure = load(data), jax.tree.structure(function.params)
    params = jax.tree.unflatten(structure, [found[name] for name in _tree.paths(function.params)])
    return lambda *inputs: [np.asarray(output) for output in function.apply(params, *inputs)]


def to_onnx(function: Function, inputs: Shapes) -> bytes:
    """Write a function with named inputs and outputs."""
    # Traced here: jax2onnx replaces functions of Flax while it traces, and compaction would not recognise them.
    program = trace(lambda _, *inputs: function.apply(function.params, *inputs), (), inputs, plain=True)
    cumsum = jnp.cumsum
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jax2onnx
        import onnx

        try:
            model = jax2onnx.to_onnx(
                lambda *inputs: _evaluate(program, inputs),
                inputs,
                model_name=function.name,
                input_names=list(function.inputs) or [f"input_{i}" for i in range(len(program.inputs))],
                output_names=list(function.outputs) or [f"output_{i}" for i in range(len(program.outputs))],
            )
        finally:
            jnp.cumsum = cumsum  # jax2onnx leaves its own, which takes no axis by position
        # Shapes of intermediate values, which ONNX Runtime infers; some are of another memory layout.
        del model.graph.value_info[:]
        onnx.helper.set_model_props(model, dict(function.metadata))
        onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def open_onnx(data: bytes) -> Call:
    """Read a function back, for ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised too
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))


def _evaluate(program: Program, inputs: Sequence[Any]) -> list[Any]:
    """Run a program, some of its operations by others."""
    known = {v: on_device(n, program.avals[v]) if is_symbolic(n) else n for v, n in program.numbers.items()}
    known |= dict(zip(program.inputs, inputs, strict=True))
    for equation in program.equations:
        operands, rewrite = [known[value] for value in equation.inputs], REWRITES.get(equation.name)
        found = rewrite(equation.params, *operands) if rewrite else None
        found = equation.bind(*operands, **equation.params) if found is None else found
        known.update(zip(equation.outputs, found if isinstance(found, list | tuple) else [found], strict=True))
    return [known[value] for value in program.outputs]


def _max_pool(params: Mapping[str, Any], images: Any) -> Any:
    """Pool over two axes by Flax's function: from the primitive jax2onnx makes a pooling over four, which ORT lacks."""
    settings = [params[name] for name in ("window_dimensions", "window_strides", "padding")]
    still = [axis == (1, 1, (0, 0)) for axis in zip(*settings, strict=True)]
    if len(still) < 4 or sum(still) < len(still) - 2 or {*params["base_dilation"], *params["window_dilation"]} != {1}:
        return None
    first, second, outer, *others = sorted(range(len(still)), key=still.__getitem__)
    order = (outer, first, second, *others)
    window, strides, padding = ([setting[axis] for axis in order[:3]] for setting in settings)
    # jax2onnx knows "VALID" and "SAME" alone.
    bordered = _with_borders(lax.transpose(images, order), -jnp.inf, padding)
    bordered = bordered.reshape(*bordered.shape[:3], -1)
    pooled = nn.max_pool(bordered, window_shape=tuple(window[1:]), strides=tuple(strides[1:]), padding="VALID")
    channels = [images.shape[axis] for axis in others]
    return lax.transpose(pooled.reshape(*pooled.shape[:3], *channels), np.argsort(order))


def _select(params: Mapping[str, Any], which: Any, *cases: Any) -> Any:
    """Select flags by logic: ORT selects none."""
    flags = which.dtype == jnp.bool and cases[0].dtype == jnp.bool and len(cases) == 2
    return (which & cases[1]) | (~which & cases[0]) if flags else None


def _pad(params: Mapping[str, Any], array: Any, value: Any) -> Any:
    """Pad by concatenation: jax2onnx pads no batch of unknown size."""
    widths = params["padding_config"]
    plain = all(low >= 0 and high >= 0 and inner == 0 for low, high, inner in widths)
    return _with_borders(array, value, [width[:2] for width in widths]) if plain else None


def _product(params: Mapping[str, Any], left: Any, right: Any) -> Any:
    """Multiply arrays of two types as one type, and those without a sum elementwise: jax2onnx can neither."""
    (summed, _), (batch, other) = params["dimension_numbers"]
    dtype = jnp.result_type(left, right)
    if summed or not batch:
        if left.dtype == right.dtype:
            return None
        return lax.dot_general(left.astype(dtype), right.astype(dtype), params["dimension_numbers"])
    shared, extra = range(len(batch)), range(left.ndim, left.ndim + right.ndim - len(batch))
    left = lax.expand_dims(jnp.moveaxis(left, batch, shared), extra)
    right = lax.expand_dims(jnp.moveaxis(right, other, shared), range(len(batch), extra.start))
    return left.astype(dtype) * right.astype(dtype)


def _with_borders(array: Any, value: Any, padding: Sequence[Any]) -> Any:
    for axis, widths in enumerate(padding):
        borders = [[width if a == axis else size for a, size in enumerate(array.shape)] for width in widths]
        low, high = (lax.broadcast(jnp.asarray(value, array.dtype), shape) for shape in borders)
        parts = [part for part, wanted in zip((low, array, high), (widths[0], True, widths[1]), strict=True) if wanted]
        array = lax.concatenate(parts, axis) if len(parts) > 1 else array
    return array


REWRITES: dict[str, Callable[..., Any]] = {
    "dot_general": _product,
    "pad": _pad,
    "reduce_window_max": _max_pool,
    "select_n": _select,
}
"""For jax2onnx: a primitive by other operations, `(params, *operands) -> output`, or None to keep it."""

FORMATS = {
    "onnx": Format(("jax2onnx", "onnx", "onnxruntime"), to_onnx, lambda data, _: open_onnx(data)),
    "stablehlo": Format(("flatbuffers",), to_stablehlo, lambda data, _: open_stablehlo(data)),
    "safetensors": Format(("safetensors",), lambda function, _: to_safetensors(function.params), open_safetensors),
}
