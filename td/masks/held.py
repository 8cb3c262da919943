"""Masks that are made once and hold from then on, in training and in evaluation: what several methods share."""

import jax.numpy as jnp

from td import prune, tree
from td.base import Init, MaskTransform, MaskVars, Params, RandomKey, Step


def held(init: Init) -> MaskTransform:
    """The method whose masks `init` puts into `stats`.

    `apply` uses them with a key and without. `prune` sets the stored weights to zero; call it after `init` and after
    every update, and neither momentum nor weight decay brings them back.

    Args:
      init: `(key, params) -> MaskVars(stats={path: mask})`, True = kept.

    Returns:
      A `MaskTransform`.

    Example:
      >>> import jax
      >>> transform = held(lambda key, params: MaskVars(stats={"w": jnp.array([[True, False]])}))
      >>> params = {"w": jnp.ones((2, 2))}
      >>> transform.prune(params, transform.init(jax.random.key(0), params))["w"].tolist()
      [[1.0, 0.0], [1.0, 0.0]]
    """

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        del key, step
        return prune_for_good(params, mask_vars), mask_vars

    def prune_for_good(params: Params, mask_vars: MaskVars) -> Params:
        return prune.mask_kernels(params, mask_vars.stats)

    return MaskTransform(init, apply, prune=prune_for_good)


def all_kept(granularity: str, kernels: tree.Patterns) -> Init:
    """The `init` of a method whose masks begin with everything kept.

    Args:
      granularity: "weight" or "unit".
      kernels: regular expressions on paths.

    Returns:
      `(key, params) -> MaskVars(stats={path: mask})`, all True.

    Example:
      >>> import jax
      >>> all_kept("unit", tree.KERNELS)(jax.random.key(0), {"w": jnp.ones((2, 2))}).stats["w"].tolist()
      [[True, True]]
    """

    def init(key: RandomKey, params: Params) -> MaskVars:
        return MaskVars(
            stats=tree.draw_entries(lambda _, shape: jnp.ones(shape, bool), key, params, granularity, kernels)
        )

    return init
