"""Targeted dropout: drop the weights or units that pruning would remove, so that the network learns without them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import _random, _tree, criteria, select
from td._entries import Entries, draw_entries, entries_of
from td.base import Fraction, MaskTransform, MaskVars, Params, RandomKey, Step, carried
from td.errors import UserError, check_at_least, check_choice, check_fraction
from td.kernels import KERNELS, Patterns, kernel_keys
from td.schedules import value_at

EVALUATIONS = ("dense", "prune_targets")


def targeted(
    granularity: str = "weight",
    target_proportion: Fraction = 0.75,
    drop_rate: Fraction = 0.66,
    *,
    criterion: str = "magnitude",
    scope: str = "unit",
    min_kept: int = 0,
    per_weight_draws: bool = False,
    straight_through: bool = False,
    kernels: Patterns = KERNELS,
    evaluation: str = "dense",
) -> MaskTransform:
    """Targeted dropout.

    The lowest-ranked proportion `target_proportion` (gamma) of each unit's weights, or of the units, are targets. Each
    target is dropped for one step with probability `drop_rate` (alpha): zero in the forward pass, without gradient.
    Nothing is rescaled; the expected proportion kept is `1 - gamma * alpha`.

    Limits: `drop_rate=1` is pruning at gamma, `target_proportion=1` DropConnect without rescaling, and
    `drop_rate=0` or `target_proportion=0` the identity.

    Args:
      granularity: "weight" draws per weight among the lowest of each unit; "unit" draws per unit among the units of
        lowest L2 norm; "group" and "head" draw per group of coupled units, or attention head, among those of lowest
        mean, and need `kernels=td.trace(...)`.
      target_proportion: a proportion in [0, 1] or a function of the step.
      drop_rate: a probability in [0, 1] or a function of the step.
      criterion: how targets are ranked, one of `td.criteria.WITHOUT_DATA`. "random" is a ranking drawn once.
      scope: where they are ranked, as in `td.prune_mask`.
      min_kept: this many of each ranking are never targets; `target_proportion` is a proportion of the others.
      per_weight_draws: draw for every weight of a target unit, as the original code did. Units only.
      straight_through: give dropped weights the gradient of the loss where they are zero.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.
      evaluation: what `apply(key=None)` returns: "dense", the whole network, or "prune_targets", the network
        without its targets, as the paper's weight columns were scored.

    Returns:
      A `MaskTransform`. Its `stats` are `{path: ranking}` for the random criterion and () for the others.

    Raises:
      UserError: a number out of range, an unknown word or a criterion that needs data.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.targeted(target_proportion=0.5, drop_rate=1.0, kernels="w")
      >>> params = {"w": jnp.array([[1.0, -4.0], [-2.0, 3.0]])}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> transform.apply(params, mask_vars, key=jax.random.key(1), step=0)[0]["w"].tolist()
      [[0.0, -4.0], [-2.0, 0.0]]

    Source: Gomez et al. 2019, section 3; straight-through: Bengio et al. 2013.
    """
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    criteria.check_without_data(criterion)
    check_choice("evaluation", evaluation, EVALUATIONS)
    check_fraction("target_proportion", target_proportion, schedule=True)
    check_fraction("drop_rate", drop_rate, schedule=True)
    select.check_scope(scope, granularity)
    check_at_least("min_kept", min_kept, whole=True)
    min_kept = int(min_kept)
    if min_kept and select.check_scope(scope) is not None:
        raise UserError(f"scope {scope!r} fixes how many stay: leave min_kept at 0")
    if per_weight_draws and granularity != "unit":
        raise UserError("per_weight_draws is for targeted units: give granularity='unit'")

    def init(key: RandomKey, params: Params) -> MaskVars:
        shapes = list(entries_of(params, granularity, kernels).shapes.values()) if min_kept else []
        if shapes and min_kept >= (most := select.largest_ranking(shapes, granularity, scope)):
            raise UserError(f"min_kept={min_kept} leaves no targets: the largest ranking has {most} entries")
        if criterion != "random":
            return MaskVars()
        return MaskVars(stats=draw_entries(jax.random.uniform, key, params, granularity, kernels))

    def rank(entries: Entries, mask_vars: MaskVars) -> dict[str, Array]:
        return entries.saliencies(criterion, carried(mask_vars.stats) if criterion == "random" else {})

    def scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        return jax.tree.map(jnp.abs, rank(entries_of(params, granularity, kernels), mask_vars))

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        if key is None and evaluation == "dense":
            return params, mask_vars
        entries = entries_of(params, granularity, kernels)
        ranked = rank(entries, mask_vars)
        keep = select.keep_masks(ranked, value_at(target_proportion, step), granularity, scope, min_kept)
        if key is not None:
            rate, keys = value_at(drop_rate, step), kernel_keys(key, step, keep)
            for name, shape in entries.shapes.items():
                drawn = entries.matrices[name].shape if per_weight_draws else shape
                keep[name] |= ~_random.bernoulli(keys[name], rate, drawn)
        masked = entries.masked(keep)
        if straight_through:
            masked = {path: _pass_through(entries.leaves[path], leaf) for path, leaf in masked.items()}
        return _tree.replace_leaves(params, masked), mask_vars

    return MaskTransform(init, apply, scores=scores, kernels=kernels)


@jax.custom_jvp
def _pass_through(kernel: Array, masked: Array) -> Array:
    """Return `masked`; its gradient goes to `kernel` whole."""
    del kernel
    return masked


_pass_through.defjvp(lambda primals, tangents: (primals[1], tangents[0]))
