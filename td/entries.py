"""One entry a weight, or one a unit, of every kernel: what gates, switches, rankings and fixed masks start from."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from td import tree
from td.base import Params, RandomKey
from td.kernels import KERNELS, Patterns, views


def entries_shape(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """The shape of what has one entry a weight, or one a unit.

    Args:
      shape: `(*stack, fan_in, units)`.
      granularity: "weight" or "unit".

    Returns:
      The same, or `(*stack, 1, units)`.

    Example:
      >>> entries_shape((144, 32), "unit")
      (1, 32)
    """
    return tuple(shape) if granularity == "weight" else (*shape[:-2], 1, shape[-1])


def draw_entries(
    draw: Callable[[RandomKey, tuple[int, ...], DTypeLike], Array],
    key: RandomKey,
    params: Params,
    granularity: str,
    kernels: Patterns = KERNELS,
) -> dict[str, Array]:
    """Make one number for each weight, or for each unit, of every chosen kernel.

    Args:
      draw: `(key, shape, float32) -> array`, called once a kernel.
      key: the run's key; each kernel gets its own.
      params: any pytree.
      granularity: "weight" asks for `[*stack, fan_in, units]`, "unit" for `[*stack, 1, units]`.
      kernels: which.

    Returns:
      `{path: array}`.

    Raises:
      UserError: as `views`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.ones((3, 3, 2, 4))}}
      >>> draw = lambda granularity: draw_entries(jax.random.normal, jax.random.key(0), params, granularity, "conv")
      >>> [draw(granularity)["conv/kernel"].shape for granularity in ("weight", "unit")]
      [(18, 4), (1, 4)]
    """
    chosen = views(params, kernels)
    keys = tree.kernel_keys(key, 0, chosen)
    # Not the key of step 0, should the user give the same one to `init` and `apply`.
    return {
        path: draw(jax.random.fold_in(keys[path], 1), entries_shape(view.matrix_shape, granularity), jnp.float32)
        for path, view in chosen.items()
    }
