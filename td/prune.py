"""Pruning after training: keep-masks at a rate, their application, and the measured sparsity."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from td import _tree, select
from td._entries import entries_of, is_coupled
from td._kernel_choice import matching
from td._radix_select.bits import count_where
from td.base import MaskTransform, MaskVars, Params, Step
from td.errors import UserError, check_fraction, nearest
from td.kernels import KERNELS, Patterns, matrices

MOST_COUNTED = 2**32
"""As many weights as an unsigned integer of 32 bits can count."""


class Sparsity(NamedTuple):
    """Fractions of exact zeros.

    Attributes:
      kernels: `{path: fraction}`.
      total: the fraction over all those kernels together, by weights.
    """

    kernels: dict[str, Array]
    total: Array


def prune_mask(
    params: Params,
    prune_rate: float | Float[Array, ""] | Mapping[str, Any],
    granularity: str = "weight",
    *,
    criterion: str = "magnitude",
    scope: str = "unit",
    min_kept: int = 0,
    kernels: Patterns = KERNELS,
    scores: Mapping[str, Array] | None = None,
    offsets: bool = True,
) -> Params:
    """Make keep-masks that remove the lowest-ranked fraction of the kernels.

    Args:
      params: any pytree.
      prune_rate: the fraction to remove, in [0, 1], or `{pattern or name: fraction}`, 0 where none matches, as
        `td.allocate` gives it. It may be traced, so that one compile serves a whole prune curve.
      granularity: "weight", "unit", or, with `kernels=td.trace(...)`, "group" (units that the function ties together,
        in every leaf that makes them) or "head" (attention heads).
      criterion: a key of `td.criteria.CRITERIA` that needs no measurement.
      scope: where ranking happens, "unit" (weights within their column, units within their kernel, as in the paper),
        "layer", "global" or "N:M"; see `td.select.keep_masks`.
      min_kept: number of each ranking that are never removed; the rate is a fraction of the others.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.
      scores: importances by path, `[*stack, fan_in, units]` or `[*stack, 1, units]`, as `MaskTransform.scores` and
        `td.importance.importances` give them. Unit pruning takes the L2 norm of a column of weight scores; a
        kernel without scores, or with scores of units where weights are pruned, is ranked by the criterion. Zeros
        are removed first.
      offsets: of a group or head also the biases, positions and scales, so that it is zero, and not a constant.

    Returns:
      A tree of bool like `params`, True = kept. All other leaves are kept whole.

    Raises:
      UserError: rate out of range, unknown word, a criterion that needs data, a pattern that matches nothing, or scores
        of another shape, or of no leaf.

    Example:
      >>> import jax.numpy as jnp, td
      >>> params = {"w": jnp.array([[1.0, -4.0], [-2.0, 3.0]])}
      >>> td.prune_mask(params, prune_rate=0.5, kernels="w")["w"].tolist()
      [[False, True], [True, False]]
      >>> td.prune_mask(params, prune_rate=0.5, scope="layer", kernels="w")["w"].tolist()
      [[False, True], [False, True]]

    Source: Gomez et al. 2019, section 3; the same selection as in `td.targeted`.
    """
    for rate in prune_rate.values() if isinstance(prune_rate, Mapping) else [prune_rate]:
        check_fraction("prune_rate", rate)
    given = {} if scores is None else scores
    leaves = _tree.named_leaves(params)
    for path in sorted(path for path in given if path not in leaves and not is_coupled(path)):
        raise UserError(f"scores of {path!r}, which is not a leaf: {nearest(path, leaves)}")

    entries = entries_of(params, granularity, kernels, offsets)
    ranked = entries.scores(given, criterion) if given else entries.saliencies(criterion)
    kept = select.keep_masks(ranked, _rates(prune_rate, list(ranked)), granularity, scope, min_kept)
    everything = jax.tree.map(lambda leaf: jnp.ones(getattr(leaf, "shape", ()), bool), params)
    return _tree.replace_leaves(everything, entries.masks(kept))


def _rates(given: Any, names: list[str]) -> Any:
    """One rate, or one for each name: its own, else that of the last pattern that matches."""
    if not isinstance(given, Mapping):
        return given
    rates = dict.fromkeys(names, 0.0)
    for pattern, rate in sorted(given.items(), key=lambda item: item[0] in rates):
        matched = [pattern] if pattern in rates else matching(pattern, names)
        if not matched:
            raise UserError(f"{pattern!r} in prune_rate matches nothing: {nearest(pattern, names)}")
        rates |= dict.fromkeys(matched, rate)
    return rates


def apply_mask(params: Params, mask: Params) -> Params:
    """Set to zero what the mask does not keep.

    Args:
      params: any pytree.
      mask: a tree of bool of the same structure and shapes, True = kept.

    Returns:
      The masked tree, same dtypes; leaves that are no numbers, as functions and keys, pass.

    Raises:
      UserError: a mask has another shape than its leaf.

    Example:
      >>> import jax.numpy as jnp, td
      >>> td.apply_mask({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([True, False])})["w"].tolist()
      [1.0, 0.0]
    """

    def masked(leaf: Any, kept: Array) -> Any:
        is_array = hasattr(leaf, "dtype") or isinstance(leaf, float | int | complex)
        if not is_array or jax.dtypes.issubdtype(jax.dtypes.result_type(leaf), jax.dtypes.extended):
            return leaf
        if jnp.shape(leaf) != jnp.shape(kept):
            raise UserError(f"a mask of shape {list(jnp.shape(kept))} does not fit a leaf of {list(jnp.shape(leaf))}")
        return jnp.where(kept, leaf, jnp.zeros_like(leaf))

    return jax.tree.map(masked, params, mask)


def sparsity(
    params: Params,
    kernels: Patterns = KERNELS,
    *,
    transform: MaskTransform | None = None,
    mask_vars: MaskVars | None = None,
    step: Step = 0,
) -> Sparsity:
    """Measure the fraction of exact zeros, or the *intrinsic* sparsity that a method has produced.

    Args:
      params: any pytree.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.
      transform: a method: measures the network as the method evaluates it, so that everything it has switched off
        counts (test gates at zero, `log_a` above the threshold, dead switches, masks).
      mask_vars: what the method carries; only with `transform`.
      step: the step, for a method with schedules; only with `transform`.

    Returns:
      `Sparsity(kernels={path: fraction}, total=fraction)`, float32 scalars.

    Raises:
      UserError: a pattern matches nothing.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> measured = td.sparsity({"w1": jnp.zeros((1, 2)), "w2": jnp.ones((3, 2))}, kernels=".*")
      >>> float(measured.kernels["w1"]), float(measured.total)
      (1.0, 0.25)
      >>> transform, params = td.random_prune(proportion=0.5, kernels="w"), {"w": jnp.ones((4, 2))}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> float(td.sparsity(params, "w", transform=transform, mask_vars=mask_vars).total)
      0.5
    """
    if transform is not None:
        params, _ = transform.apply(params, MaskVars() if mask_vars is None else mask_vars, key=None, step=step)
    chosen = matrices(params, kernels)
    sizes = {path: matrix.size for path, matrix in chosen.items()}
    zeros = {path: _count_zeros(matrix, sum(sizes.values())) for path, matrix in chosen.items()}
    return Sparsity(
        kernels={path: zeros[path].astype(jnp.float32) / jnp.float32(sizes[path]) for path in chosen},
        total=jnp.asarray(sum(zeros.values()), jnp.float32) / jnp.float32(sum(sizes.values())),
    )


def _count_zeros(matrix: Array, whole: int) -> Array:
    """As a whole number where all kernels together have few enough weights to count them so, else as a float."""
    of_column = count_where(lambda part: part == 0, matrix.reshape(-1, matrix.shape[-1]))
    return jnp.sum(of_column, dtype=jnp.uint32 if whole < MOST_COUNTED else jnp.float32)


def dead_units(params: Params, kernels: Patterns = KERNELS) -> dict[str, Bool[Array, "*stack units"]]:
    """Find the units without any nonzero weight.

    Args:
      params: any pytree.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      `{path: [*stack, units]}`, True where the whole column is zero. A unit may still emit a constant,
      by its norm's bias.

    Raises:
      UserError: a pattern matches nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> dead_units({"w": jnp.array([[0.0, 1.0], [0.0, 0.0]])}, "w")["w"].tolist()
      [True, False]
    """
    return {path: jnp.all(matrix == 0, axis=-2) for path, matrix in matrices(params, kernels).items()}
