"""Selection within a column, within a kernel, over the whole network, or within groups of a column."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from td import _tree
from td._radix_select import bottom_k_mask, bottom_k_masks, fraction_to_count
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice, nearest

SCOPES = ("unit", "layer", "global")
"""The named scopes; "N:M", as 2:4, is the fourth."""

Proportion = float | Float[Array, ""]


def keep_masks(
    scores: Mapping[str, Float[Array, "..."]],
    proportion: Proportion | Mapping[str, Any],
    granularity: str,
    scope: str = "unit",
    min_kept: int = 0,
) -> dict[str, Bool[Array, "..."]]:
    """Keep all but the lowest-ranked fraction of each scope.

    ========  ======================================================  =================
    scope     weights compete                                         units compete
    ========  ======================================================  =================
    "unit"    within their column                                     within the kernel
    "layer"   within the kernel                                       within the kernel
    "global"  over all kernels                                        over all kernels
    "N:M"     within M neighbours of a column; N of them always stay  not defined
    ========  ======================================================  =================

    Each kernel of a stack counts as one kernel.

    Args:
      scores: `{path: importances}`: `[*stack, fan_in, units]` for weights, `[*stack, 1, units]` for units; the sign
        does not count.
      proportion: the fraction to remove, in [0, 1], or one for each name; may be traced.
      granularity: "weight"; all others are ranked as units are.
      scope: one of `SCOPES`, or "N:M".
      min_kept: number of each ranking that are never removed; `proportion` is a fraction of the others.

    Returns:
      `{path: mask}`, True = kept, shapes as the scores'.

    Raises:
      UserError: unknown word, groups of units, groups with `min_kept`, several proportions in one global ranking, or
        scores that are explicitly sharded.

    Example:
      >>> import jax.numpy as jnp
      >>> keep_masks({"w": jnp.array([[5.0, 1.0, 3.0, 2.0]])}, 0.5, "unit")["w"].tolist()
      [[True, False, True, False]]
      >>> keep_masks({"w": jnp.arange(8.0)[:, None]}, 1.0, "weight", "2:4")["w"].astype(int).ravel().tolist()
      [0, 0, 1, 1, 0, 0, 1, 1]
    """
    check_choice("granularity", granularity, GRANULARITIES)
    group = check_scope(scope, granularity)
    if group is not None and min_kept:
        raise UserError(f"scope {scope!r} fixes how many stay: leave min_kept at 0")
    if isinstance(proportion, Mapping):
        if scope == "global":
            raise UserError("scope 'global' ranks all kernels together: give one rate, or another scope")
        each = [keep_masks({name: scores[name]}, proportion[name], granularity, scope, min_kept) for name in scores]
        return {name: mask for masks in each for name, mask in masks.items()}
    by_column = scope not in SCOPES or (scope == "unit" and granularity == "weight")
    check_spread(scores)
    if scope == "global":
        return _keep_globally(scores, proportion, min_kept)
    columns = {path: _columns(score, by_column) for path, score in scores.items()}
    if group is not None:
        kept = {path: _keep_in_groups(column, proportion, *group) for path, column in columns.items()}
    else:
        kept = {path: ~low for path, low in bottom_k_masks(columns, proportion, min_kept).items()}
    return {path: _from_columns(mask, scores[path].shape, by_column) for path, mask in kept.items()}


def rank_zeros_first(score: Float[Array, "..."], present: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Rank entries that are already zero below all others; a nonzero entry with score 0 outranks a pruned one."""
    return jnp.where(present, jnp.where(score == 0, jnp.finfo(score.dtype).smallest_subnormal, score), 0)


def check_spread(scores: Mapping[str, Array]) -> None:
    """Reject explicit sharding: XLA decides which entries devices exchange to rank them."""
    for path, score in scores.items():
        spec = jax.typeof(score).sharding.spec
        if any(axis is not None for axis in spec):
            raise UserError(
                f"{path!r} is sharded explicitly, as {spec}, and cannot be ranked or masked so: make the mesh with "
                "axis_types=(jax.sharding.AxisType.Auto,), or call this within jax.sharding.auto_axes"
            )


def largest_ranking(shapes: Collection[tuple[int, ...]], granularity: str, scope: str) -> int:
    """Count the entries of the largest ranking, from their shapes."""
    if scope == "global":
        return sum(map(math.prod, shapes))
    by_column = scope == "unit" and granularity == "weight"
    return max((rows * (1 if by_column else units) for *_, rows, units in shapes), default=0)


def _columns(score: Array, by_column: bool) -> Array:
    """`[competitors, rankings]`: a ranking for every column, or for every kernel."""
    rows, units = score.shape[-2:]
    if not by_column:
        return score.reshape(-1, rows * units).T
    if score.ndim == 2:
        return score
    return jnp.moveaxis(score.reshape(-1, rows, units), 0, 1).reshape(rows, -1)


def _from_columns(mask: Array, shape: tuple[int, ...], by_column: bool) -> Array:
    if not by_column:
        return mask.T.reshape(shape)
    if len(shape) == 2:
        return mask
    return jnp.moveaxis(mask.reshape(shape[-2], -1, shape[-1]), 1, 0).reshape(shape)


def check_scope(scope: str, granularity: str = "weight") -> tuple[int, int] | None:
    """Reject an unknown scope."""
    if scope in SCOPES:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", scope)
    if match is None:
        raise UserError(f"unknown scope {scope!r}: {nearest(scope, SCOPES)}, or N:M as 2:4")
    kept, size = int(match[1]), int(match[2])
    if not 0 < kept < size:
        raise UserError(f"scope {scope!r} is out of range: N of every M weights stay, with 0 < N < M, as 2:4")
    if granularity != "weight":
        raise UserError(f"scope {scope!r} is for weights: give --granularity=weight, or scope unit, layer or global")
    return kept, size


def _keep_globally(scores: Mapping[str, Array], proportion: Any, min_kept: int) -> dict[str, Array]:
    if not scores:
        return {}
    flat = jnp.concatenate([score.astype(jnp.float32).ravel() for score in scores.values()])
    kept = ~bottom_k_masks({"": flat[:, None]}, proportion, min_kept)[""][:, 0]
    return _tree.split(kept, {path: score.shape for path, score in scores.items()})


def _keep_in_groups(score: Array, proportion: Proportion, kept: int, size: int) -> Array:
    rows, units = score.shape
    rest = rows % size
    whole, last = score[: rows - rest], score[rows - rest :]
    share = jnp.minimum(jnp.float32(proportion), jnp.float32((size - kept) / size))
    groups = jnp.moveaxis(whole.reshape(-1, size, units), 1, 0).reshape(size, -1)
    mask = jnp.moveaxis(~bottom_k_mask(groups, share).reshape(size, -1, units), 0, 1).reshape(-1, units)
    if not rest:
        return mask
    # Of an incomplete last group the missing weights are the first to go, so N real ones stay there, too.
    gone = jnp.maximum(fraction_to_count(share, size).astype(jnp.int32) - (size - rest), 0)
    return jnp.concatenate([mask, ~bottom_k_mask(last, gone / rest)])
