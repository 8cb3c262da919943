"""Pruning after training: keep-masks at a rate, applying them, and the sparsity that really results."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from td import criteria, select, tree
from td.base import Params
from td.errors import check_choice, check_share


class Sparsity(NamedTuple):
    """Shares of exact zeros.

    Attributes:
      kernels: `{path: share}`.
      total: the share over all those kernels together, by weights.
    """

    kernels: dict[str, Array]
    total: Array


def keep_mask(
    scores: Float[Array, "rows units"], rate: float | Float[Array, ""], granularity: str
) -> Bool[Array, "rows units"]:
    """Keep all but the lowest-ranked share of one kernel.

    Args:
      scores: importances: `[fan_in, units]` for weights, `[1, units]` for units.
      rate: the share to remove, in [0, 1]; may be traced.
      granularity: "weight" ranks within each column, "unit" ranks the columns.

    Returns:
      True = kept.

    Example:
      >>> import jax.numpy as jnp
      >>> keep_mask(jnp.array([[5.0, 1.0, 3.0, 2.0]]), 0.5, "unit").tolist()
      [[True, False, True, False]]
    """
    if criteria.RANKED_AXIS[granularity] == 0:
        return ~select.lowest(scores, rate)
    return ~select.lowest(scores.T, rate).T


def prune_mask(
    params: Params,
    prune_rate: float | Float[Array, ""],
    granularity: str = "weight",
    *,
    kernels: tree.Patterns = tree.KERNELS,
    scores: Mapping[str, Array] | None = None,
) -> Params:
    """Keep-masks that remove the lowest-ranked share of every kernel, layer by layer.

    Args:
      params: any pytree.
      prune_rate: the share to remove from each column (weights) or of the columns (units), in [0, 1]. A traced
        value is accepted, so that one compile serves a whole prune curve.
      granularity: "weight" or "unit".
      kernels: regular expressions on paths; by default all kernels but `stem` and `logits`.
      scores: importances by path, `[fan_in, units]` or `[1, units]`, as `MaskTransform.scores` returns them.
        A kernel that is not there is ranked by magnitude.

    Returns:
      A tree of bool like `params`, True = kept. Leaves that are no chosen kernel are kept whole.

    Raises:
      UserError: rate out of range, unknown granularity, or a pattern that matches nothing.

    Example:
      >>> import jax.numpy as jnp, td
      >>> td.prune_mask({"w": jnp.array([[1.0, -4.0], [-2.0, 3.0]])}, prune_rate=0.5)["w"].tolist()
      [[False, True], [True, False]]

    Source: Gomez et al. 2019, section 3; the same ranking as `td.targeted`.
    """
    check_share("prune_rate", prune_rate)
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    ranked = {} if scores is None else scores

    def mask(path: str, kernel: Array) -> Array:
        importance = ranked.get(path, tree.as_matrix(kernel))
        if granularity == "weight" or importance.shape[0] > 1 or path not in ranked:
            importance = criteria.magnitude(importance, granularity)
        kept = keep_mask(importance, prune_rate, granularity)
        return jnp.broadcast_to(kept, (kernel.size // kernel.shape[-1], kernel.shape[-1])).reshape(kernel.shape)

    chosen = {path: mask(path, kernel) for path, kernel in tree.select_kernels(params, kernels).items()}
    return tree.replace_kernels(jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), params), chosen)


def apply_mask(params: Params, mask: Params) -> Params:
    """Set to zero what the mask does not keep.

    Args:
      params: any pytree.
      mask: a tree of bool of the same structure, True = kept.

    Returns:
      The masked tree, same dtypes.

    Example:
      >>> import jax.numpy as jnp, td
      >>> td.apply_mask({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([True, False])})["w"].tolist()
      [1.0, 0.0]
    """
    return jax.tree.map(lambda leaf, kept: jnp.where(kept, leaf, jnp.zeros_like(leaf)), params, mask)


def sparsity(params: Params, kernels: tree.Patterns = tree.KERNELS) -> Sparsity:
    """Measure the share of exact zeros.

    Args:
      params: any pytree.
      kernels: regular expressions on paths; by default all kernels but `stem` and `logits`.

    Returns:
      `Sparsity(kernels={path: share}, total=share)`, float32 scalars.

    Raises:
      UserError: a pattern matches nothing.

    Example:
      >>> import jax.numpy as jnp, td
      >>> measured = td.sparsity({"a": jnp.zeros((1, 2)), "b": jnp.ones((3, 2))})
      >>> float(measured.kernels["a"]), float(measured.total)
      (1.0, 0.25)
    """
    chosen = tree.select_kernels(params, kernels)
    zeros = {path: jnp.sum(kernel == 0, dtype=jnp.int32) for path, kernel in chosen.items()}
    size = {path: kernel.size for path, kernel in chosen.items()}
    return Sparsity(
        kernels={path: zeros[path] / size[path] for path in chosen},
        total=jnp.asarray(sum(zeros.values()) / sum(size.values()), jnp.float32),
    )
