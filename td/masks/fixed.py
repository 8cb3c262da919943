"""Masks that stay in force once made, in training and at evaluation; shared by several methods."""

import jax
import jax.numpy as jnp

from td import _tree
from td._entries import draw_entries, entries_of
from td.base import MaskTransform, MaskVars, Params, RandomKey, Step, carried
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice
from td.kernels import KERNELS, Patterns, find_kernels


def fixed(granularity: str, kernels: Patterns) -> MaskTransform:
    """Apply the keep-masks in `stats`, with a key and without, and prune by them; at first everything is kept."""

    def init(key: RandomKey, params: Params) -> MaskVars:
        return MaskVars(
            stats=draw_entries(lambda _, shape, dtype: jnp.ones(shape, bool), key, params, granularity, kernels)
        )

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        del key, step
        return prune_stored(params, mask_vars), mask_vars

    def prune_stored(params: Params, mask_vars: MaskVars) -> Params:
        masked = entries_of(params, granularity, kernels).masked(carried(mask_vars.stats))
        return _tree.replace_leaves(params, masked)

    return MaskTransform(init, apply, prune=prune_stored, kernels=kernels)


def fixed_masks(granularity: str = "weight", *, kernels: Patterns = KERNELS) -> MaskTransform:
    """Keep masks of your own in force: fine-tuning of a pruned network.

    `as_mask_vars` puts masks of `td.prune_mask` into `stats`; those of `init` keep everything.

    Args:
      granularity: of the masks, as in `td.targeted`.
      kernels: which leaves, as in `td.kernels.find_kernels`.

    Returns:
      A `MaskTransform` whose `stats` are `{path: mask}`, True = kept: `[*stack, fan_in, units]`, `[*stack, 1, units]`,
      or `[rankings, 1, n]` for groups and heads.

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
    return fixed(granularity, kernels)


def as_mask_vars(mask: Params, params: Params, granularity: str = "weight", *, kernels: Patterns = KERNELS) -> MaskVars:
    """Convert masks of `td.prune_mask` into the variables of `fixed_masks`.

    Args:
      mask: a tree of bool like `params`, True = kept.
      params: any pytree.
      granularity: "weight", or "unit", "group" or "head" to keep each with a kept weight.
      kernels: which leaves, as in `td.kernels.find_kernels`; masks of other leaves are ignored.

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
    kept = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), mask)
    given = _tree.named_leaves(kept)
    for path, view in find_kernels(params, kernels).items():
        if path not in given or jnp.shape(given[path]) != view.shape:
            raise UserError(f"the mask of {path!r} must have its shape, {list(view.shape)}: give a tree like params")
    return MaskVars(stats=entries_of(kept, granularity, kernels).present())
