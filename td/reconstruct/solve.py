"""Least squares on a support from a Gram matrix, all units at once."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


def solve(
    gram: Float[Any, "stack fan_in fan_in"],
    residual: Float[Any, "stack fan_in units"],
    kept: Bool[Any, "stack fan_in units"],
    ridge: float,
    tolerance: float,
) -> Float[Array, "stack fan_in units"]:
    """Compute the change d of the kept entries that minimises `d' G d - 2 d' R + ridge * mean(diag G) * d' d`."""
    with jax.enable_x64(True):
        return _conjugate_gradients(gram, residual, kept, ridge, tolerance)


@jax.jit
def _conjugate_gradients(gram: Array, residual: Array, kept: Array, ridge: Any, tolerance: Any) -> Array:
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)[..., None]
    weight = ridge * diagonal.mean(axis=1, keepdims=True)
    scale = jnp.where(kept, 1 / jnp.maximum(diagonal + weight, jnp.finfo(gram.dtype).tiny), 0)

    def step(state: Any) -> Any:
        count, found, rest, direction, old = state
        image = jnp.where(kept, gram @ direction + weight * direction, 0)
        length = _ratio(old, jnp.sum(direction * image, axis=1, keepdims=True))
        found, rest = found + length * direction, rest - length * image
        new = jnp.sum(rest * rest * scale, axis=1, keepdims=True)
        return count + 1, found, rest, rest * scale + _ratio(new, old) * direction, new

    rest = jnp.where(kept, residual, 0)
    first = jnp.sum(rest * rest * scale, axis=1, keepdims=True)
    start = (0, jnp.zeros_like(rest), rest, rest * scale, first)
    most = 4 * gram.shape[1] + 100
    unfinished = lambda state: (state[0] < most) & jnp.any(state[-1] > tolerance**2 * first)  # noqa: E731
    return lax.while_loop(unfinished, step, start)[1]


def _ratio(above: Array, below: Array) -> Array:
    """Zero where a unit is solved."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)
