"""Nested dropout (Rippel et al. 2014) as a method of your own: units are ordered, and the last ones go."""

import jax
import jax.numpy as jnp

import td
from td.base import Params, RandomKey, Step
from td.kernels import KERNELS, Patterns, find_kernels, kernel_keys, map_kernels, matrices


def nested_dropout(proportion: float = 0.75, *, kernels: Patterns = KERNELS) -> td.MaskTransform:
    """Drop the last units of each kernel, from a place drawn at every step, and prune the last units first.

    The place is uniform over the last `proportion` of the units; Rippel et al. draw it from a geometric distribution,
    which seldom reaches the last of many units.
    """

    def apply(
        params: Params, mask_vars: td.MaskVars, *, key: RandomKey | None, step: Step
    ) -> tuple[Params, td.MaskVars]:
        if key is None:
            return params, mask_vars
        keys = kernel_keys(key, step, find_kernels(params, kernels))

        def truncate(path: str, matrix: jax.Array) -> jax.Array:
            units = matrix.shape[-1]
            kept = units * (1 - proportion * jax.random.uniform(keys[path]))
            return matrix * (jnp.arange(units) < kept).astype(matrix.dtype)

        return map_kernels(truncate, params, kernels), mask_vars

    def scores(params: Params, mask_vars: td.MaskVars) -> dict[str, jax.Array]:
        del mask_vars
        shapes = {path: (1, matrix.shape[-1]) for path, matrix in matrices(params, kernels).items()}
        return {path: jnp.broadcast_to(jnp.arange(shape[-1], 0.0, -1), shape) for path, shape in shapes.items()}

    return td.MaskTransform(td.base.no_vars, apply, scores=scores, kernels=kernels)
