"""Initial gates, switches, rankings and fixed masks: one entry a weight, or one a unit, of every kernel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from td.base import Params, RandomKey
from td.kernels import KERNELS, Patterns, find_kernels, kernel_keys


def entries_shape(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """Shape of an array with one entry a weight, or one a unit."""
    return tuple(shape) if granularity == "weight" else (*shape[:-2], 1, shape[-1])


def draw_entries(
    draw: Callable[[RandomKey, tuple[int, ...], DTypeLike], Array],
    key: RandomKey,
    params: Params,
    granularity: str,
    kernels: Patterns = KERNELS,
) -> dict[str, Array]:
    """Make one number for each weight, or for each unit, of every chosen kernel."""
    chosen = find_kernels(params, kernels)
    keys = kernel_keys(key, 0, chosen)
    # Not the key of step 0, should the user give the same one to `init` and `apply`.
    return {
        path: draw(jax.random.fold_in(keys[path], 1), entries_shape(view.matrix_shape, granularity), jnp.float32)
        for path, view in chosen.items()
    }
