"""Networks as ONNX, by jax2onnx; padding and max pooling are rewritten where it or ONNX Runtime lacks them."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from td.export.formats import Call, Network, Part, any_batch, evaluate


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
