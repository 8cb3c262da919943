"""Max pooling in a form that ONNX Runtime can run."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array


def replayed(closed: ClosedJaxpr, inputs: Sequence[Array]) -> list[Array]:
    """Run a program once more, for jax2onnx to trace, with max pooling of images by Flax's function.

    Of the primitive jax2onnx makes a pooling over four axes, which ONNX Runtime lacks; of Flax's function over two.
    """
    known: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(closed.jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        operands, primitive = [read(atom) for atom in equation.invars], equation.primitive
        if primitive.name == "reduce_window_max" and _of_images(equation.params):
            outputs = [_max_pool(operands[0], equation.params)]
        else:
            found = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
            outputs = found if primitive.multiple_results else [found]
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _of_images(params: Mapping[str, Any]) -> bool:
    """Whether a window lies over the second and third of four axes, without dilation."""
    window, dilations = params["window_dimensions"], (*params["base_dilation"], *params["window_dilation"])
    outer = [(params["window_strides"][axis], *params["padding"][axis]) for axis in (0, -1)]
    return len(window) == 4 and window[0] == window[-1] == 1 and {*dilations} == {1} and outer == [(1, 0, 0)] * 2


def _max_pool(images: Array, params: Mapping[str, Any]) -> Array:
    """With borders of minus infinity: jax2onnx pads no batch of unknown size, and pools "VALID" and "SAME" alone."""
    window, strides, padding = (params[name][1:3] for name in ("window_dimensions", "window_strides", "padding"))
    for axis, widths in enumerate(padding, start=1):
        shapes = [[width if a == axis else size for a, size in enumerate(images.shape)] for width in widths]
        low, high = (jnp.full(shape, -jnp.inf, images.dtype) for shape in shapes)
        images = lax.concatenate([part for part in (low, images, high) if part.shape[axis]], axis)
    return nn.max_pool(images, window_shape=window, strides=strides, padding="VALID")
