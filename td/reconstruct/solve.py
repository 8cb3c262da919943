"""Least squares on a support, and the losses of greedy removal, from Gram matrices."""

from functools import partial
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


BLOCKS = 64
"""Steps of a greedy removal; a kernel with fewer rows is removed one weight at a time."""

GROWTH = 1 + 1e-6
"""Factor that keeps the losses of later weights above those of earlier ones."""

UNITS = 8
"""Units whose inverses are in memory at once."""


def removal_losses(
    gram: Float[Any, "stack fan_in fan_in"], weights: Float[Any, "stack fan_in units"], ridge: float
) -> Float[Array, "stack fan_in units"]:
    """Compute the increase of the squared error as each weight goes, in the order of greedy removal unit by unit.

    With H = G + ridge * mean(diag G), the weight with the smallest `w^2 / [H^-1]_qq` goes first, the others are
    updated, and so on. Never smaller than that of a weight that went before, so that they rank.
    """
    with jax.enable_x64(True):
        return _removal_losses(gram, weights, ridge)


@jax.jit
def _removal_losses(gram: Array, weights: Array, ridge: Any) -> Array:
    size = gram.shape[-1]
    block = -(-size // BLOCKS)

    def of_unit(inverse: Array, unit: Array) -> Array:
        def step(_: Any, state: Any) -> Any:
            inverse, unit, left, losses, least = state
            scores = jnp.where(left, unit**2 / jnp.diagonal(inverse), jnp.inf)
            negative, chosen = lax.top_k(-scores, block)
            found = jnp.maximum(-negative, least)
            losses = losses.at[chosen].set(jnp.where(left[chosen], found, losses[chosen]))
            rows, gone = inverse[:, chosen], jnp.diag(jnp.where(left[chosen], 0.0, 1.0))
            solved = jnp.linalg.solve(rows[chosen] + gone, jnp.c_[rows.T, unit[chosen]])
            inverse, unit = inverse - rows @ solved[:, :-1], unit - rows @ solved[:, -1]
            left = left.at[chosen].set(False)
            grown = jnp.max(jnp.where(jnp.isfinite(found), found, 0)) * GROWTH
            return inverse, jnp.where(left, unit, 0), left, losses, grown

        state = inverse, unit, jnp.ones(size, bool), jnp.zeros(size, gram.dtype), jnp.zeros((), gram.dtype)
        return lax.fori_loop(0, -(-size // block), step, state)[3]

    def of_kernel(matrix: Array, units: Array) -> Array:
        weight = ridge * jnp.diagonal(matrix).mean()
        inverse = jnp.linalg.inv(matrix + weight * jnp.eye(size, dtype=matrix.dtype))
        return lax.map(partial(of_unit, inverse), units.T, batch_size=UNITS).T

    return lax.map(lambda both: of_kernel(*both), (gram, weights))
