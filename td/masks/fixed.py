"""Masks that are made once and hold from then on, in training and in evaluation: what several methods share."""

import jax.numpy as jnp

from td import prune, tree
from td.base import Init, MaskTransform, MaskVars, Params, RandomKey, Step, carried
from td.criteria import GRANULARITIES
from td.entries import draw_entries
from td.errors import UserError, check_choice
from td.kernels import KERNELS, Patterns, views


def fixed(init: Init, kernels: Patterns) -> MaskTransform:
    """The method whose masks `init` puts into `stats`.

    `apply` uses them with a key and without. `prune` sets the stored weights to zero; call it after `init` and after
    every update, and neither momentum nor weight decay brings them back.

    Args:
      init: `(key, params) -> MaskVars(stats={path: mask})`, True = kept.
      kernels: which leaves, as in `td.kernels.views`.

    Returns:
      A `MaskTransform`.

    Example:
      >>> import jax, td
      >>> transform = fixed(lambda key, params: MaskVars(stats={"w": jnp.array([[True, False]])}), "w")
      >>> params = {"w": jnp.ones((2, 2))}
      >>> transform.prune(params, transform.init(jax.random.key(0), params))["w"].tolist()
      [[1.0, 0.0], [1.0, 0.0]]
    """

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        del key, step
        return prune_for_good(params, mask_vars), mask_vars

    def prune_for_good(params: Params, mask_vars: MaskVars) -> Params:
        return prune.mask_kernels(params, carried(mask_vars.stats), kernels)

    return MaskTransform(init, apply, prune=prune_for_good, kernels=kernels)


def fixed_masks(granularity: str = "weight", *, kernels: Patterns = KERNELS) -> MaskTransform:
    """Masks that somebody else has made, for good: what a pruned network is fine-tuned with.

    Put them into `stats`, as `as_mask_vars` does with those of `td.prune_mask`; `init` keeps everything.

    Args:
      granularity: masks of "weight" or of "unit".
      kernels: which leaves, as in `td.kernels.views`.

    Returns:
      A `MaskTransform` whose `stats` are `{path: mask}`, True = kept:
      `[*stack, fan_in, units]` or `[*stack, 1, units]`.

    Raises:
      UserError: an unknown word.

    Example:
      >>> import jax, td
      >>> transform, params = td.masks.fixed_masks("unit", kernels="w"), {"w": jnp.ones((2, 2))}
      >>> mask_vars = td.MaskVars(stats={"w": jnp.array([[True, False]])})
      >>> transform.apply(params, mask_vars, key=jax.random.key(0), step=0)[0]["w"].tolist()
      [[1.0, 0.0], [1.0, 0.0]]
    """
    check_choice("granularity", granularity, GRANULARITIES)
    return fixed(all_kept(granularity, kernels), kernels)


def as_mask_vars(mask: Params, params: Params, granularity: str = "weight", *, kernels: Patterns = KERNELS) -> MaskVars:
    """Masks of `td.prune_mask` as `fixed_masks` holds them: prune, then fine-tune.

    Args:
      mask: a tree of bool like `params`, True = kept.
      params: any pytree.
      granularity: "weight", or "unit" to keep every unit of which a weight is kept.
      kernels: which leaves, as in `td.kernels.views`; masks of all others are not looked at.

    Returns:
      `MaskVars(stats={path: mask})`.

    Raises:
      UserError: a mask is missing or has another shape than its kernel.

    Example:
      >>> import jax, td
      >>> params = {"w": jnp.array([[1.0, -4.0], [-2.0, 3.0]])}
      >>> transform = td.masks.fixed_masks(kernels="w")
      >>> mask = td.prune_mask(params, 0.5, kernels=transform)
      >>> mask_vars = td.masks.as_mask_vars(mask, params, kernels=transform)
      >>> transform.apply(params, mask_vars, key=jax.random.key(0), step=0)[0]["w"].tolist()
      [[0.0, -4.0], [-2.0, 0.0]]
    """
    check_choice("granularity", granularity, GRANULARITIES)
    given, kept = tree.named_leaves(mask), {}
    for path, view in views(params, kernels).items():
        if path not in given or jnp.shape(given[path]) != view.shape:
            raise UserError(f"the mask of {path!r} must have its shape, {list(view.shape)}: give a tree like params")
        whole = view.as_matrix(jnp.asarray(given[path], bool))
        kept[path] = whole if granularity == "weight" else jnp.any(whole, axis=-2, keepdims=True)
    return MaskVars(stats=kept)


def all_kept(granularity: str, kernels: Patterns) -> Init:
    """The `init` of a method whose masks begin with everything kept.

    Args:
      granularity: "weight" or "unit".
      kernels: which leaves, as in `td.kernels.views`.

    Returns:
      `(key, params) -> MaskVars(stats={path: mask})`, all True.

    Example:
      >>> import jax, td
      >>> all_kept("unit", "w")(jax.random.key(0), {"w": jnp.ones((2, 2))}).stats["w"].tolist()
      [[True, True]]
    """

    def init(key: RandomKey, params: Params) -> MaskVars:
        present = lambda _, shape, dtype: jnp.ones(shape, bool)  # noqa: E731
        return MaskVars(stats=draw_entries(present, key, params, granularity, kernels))

    return init
