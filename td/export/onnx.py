"""Padding and max pooling in forms that jax2onnx translates at any number of rows, and ONNX Runtime runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array


def replayed(closed: ClosedJaxpr, inputs: Sequence[Array]) -> list[Array]:
    """Run a program once more, for jax2onnx to trace.

    Of the primitive for max pooling jax2onnx makes a pooling over four axes, which ONNX Runtime lacks; of Flax's
    function one over two. It pads no batch of unknown size, so that borders are concatenated.
    """
    known: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(closed.jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        operands, primitive = [read(atom) for atom in equation.invars], equation.primitive
        if primitive.name == "reduce_window_max" and _of_images(equation.params):
            outputs = [_max_pool(operands[0], equation.params)]
        elif primitive.name == "pad" and _by_borders(equation.params["padding_config"]):
            outputs = [_padded(operands[0], operands[1], [widths[:2] for widths in equation.params["padding_config"]])]
        else:
            found = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
            outputs = found if primitive.multiple_results else [found]
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _by_borders(padding: Sequence[Any]) -> bool:
    """Whether nothing is cut off, and nothing comes in between."""
    return all(low >= 0 and high >= 0 and inner == 0 for low, high, inner in padding)


def _of_images(params: Mapping[str, Any]) -> bool:
    """Whether a window lies over the second and third of four axes, without dilation."""
    window, dilations = params["window_dimensions"], (*params["base_dilation"], *params["window_dilation"])
    outer = [(params["window_strides"][axis], *params["padding"][axis]) for axis in (0, -1)]
    return len(window) == 4 and window[0] == window[-1] == 1 and {*dilations} == {1} and outer == [(1, 0, 0)] * 2


def _max_pool(images: Array, params: Mapping[str, Any]) -> Array:
    """With borders of minus infinity: jax2onnx knows "VALID" and "SAME" alone."""
    window, strides = (params[name][1:3] for name in ("window_dimensions", "window_strides"))
    images = _padded(images, -jnp.inf, params["padding"])
    return nn.max_pool(images, window_shape=window, strides=strides, padding="VALID")


def _padded(array: Array, value: Any, padding: Sequence[Any]) -> Array:
    """With so many entries of the value before and behind every axis."""
    for axis, widths in enumerate(padding):
        borders = [[width if a == axis else size for a, size in enumerate(array.shape)] for width in widths]
        low, high = (lax.broadcast(jnp.asarray(value, array.dtype), shape) for shape in borders)
        parts = [part for part, wanted in zip((low, array, high), (widths[0], True, widths[1]), strict=True) if wanted]
        array = lax.concatenate(parts, axis) if len(parts) > 1 else array
    return array
