"""Targeted dropout: drop the weights or units that pruning would remove, and the network learns to do without."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import criteria, prune, random_bits, select, tree
from td.base import MaskTransform, MaskVars, Params, RandomKey, Share, Step, carried
from td.entries import draw_entries, entries_shape
from td.errors import UserError, check_at_least, check_choice, check_share
from td.kernels import KERNELS, Patterns, matrices, views
from td.schedules import value_at

EVALUATIONS = ("dense", "prune_targets")


def targeted(
    granularity: str = "weight",
    target_proportion: Share = 0.75,
    drop_rate: Share = 0.66,
    *,
    criterion: str = "magnitude",
    scope: str = "unit",
    spare: int = 0,
    per_weight_draws: bool = False,
    straight_through: bool = False,
    kernels: Patterns = KERNELS,
    evaluation: str = "dense",
) -> MaskTransform:
    """Targeted dropout.

    The lowest-ranked share `target_proportion` (gamma) of each column, or of the columns, are candidates; each is
    dropped for one step with probability `drop_rate` (alpha). The kept share is `1 - gamma * alpha` in
    expectation, and nothing is rescaled. A dropped weight is zero in the forward pass and gets no gradient.

    Limits: `drop_rate=1` is pruning at gamma; `target_proportion=1` is DropConnect without rescaling;
    `drop_rate=0` or `target_proportion=0` is the identity.

    Args:
      granularity: "weight" draws per weight among the lowest of each column; "unit" draws per column among the
        columns of lowest L2 norm.
      target_proportion: a share in [0, 1] or a function of the step.
      drop_rate: a probability in [0, 1] or a function of the step.
      criterion: how candidates are ranked, one of `td.criteria.WITHOUT_DATA`. "random" is a ranking drawn once.
      scope: where they are ranked, as in `td.prune_mask`.
      spare: so many of each ranking are never candidates; `target_proportion` is a share of the others.
      per_weight_draws: draw for every weight of a candidate unit, as the original code did. Units only.
      straight_through: let the gradient pass to dropped weights: that of the loss where they are zero.
      kernels: which leaves, as in `td.kernels.views`; by default all but first and last layers and embeddings.
      evaluation: what `apply(key=None)` returns: "dense", the whole network, or "prune_targets", the network
        without its candidates, as the paper's weight columns were scored. A key makes it stochastic.

    Returns:
      A `MaskTransform`. Its `stats` are `{path: ranking}` for the random criterion and () for the others.

    Raises:
      UserError: a share or a count out of range, an unknown word or a criterion that needs data.

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
    check_share("target_proportion", target_proportion, schedule=True)
    check_share("drop_rate", drop_rate, schedule=True)
    select.check_scope(scope, granularity)
    check_at_least("spare", spare, whole=True)
    spare = int(spare)
    if spare and select.check_scope(scope) is not None:
        raise UserError(f"scope {scope!r} says how many stay: leave spare at 0")
    if per_weight_draws and granularity == "weight":
        raise UserError("per_weight_draws is of targeted units: give granularity='unit'")

    def init(key: RandomKey, params: Params) -> MaskVars:
        shapes = [view.matrix_shape for view in views(params, kernels).values()] if spare else []
        if shapes and spare >= (most := select.largest_ranking(shapes, granularity, scope)):
            raise UserError(f"spare={spare} leaves no candidate, {most} compete where the most do: give less")
        if criterion != "random":
            return MaskVars()
        return MaskVars(stats=draw_entries(jax.random.uniform, key, params, granularity, kernels))

    def saliencies(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        measured = carried(mask_vars.stats) if criterion == "random" else {}
        return {
            path: criteria.saliency(matrix, granularity, criterion, measured.get(path))
            for path, matrix in matrices(params, kernels).items()
        }

    def scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        return jax.tree.map(jnp.abs, saliencies(params, mask_vars))

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        if key is None and evaluation == "dense":
            return params, mask_vars
        ranked = saliencies(params, mask_vars)
        kept = select.keep_masks(ranked, value_at(target_proportion, step), granularity, scope, spare)
        if key is not None:
            chosen, rate = views(params, kernels), value_at(drop_rate, step)
            keys = tree.kernel_keys(key, step, chosen)
            for path, view in chosen.items():
                shape = entries_shape(view.matrix_shape, "weight" if per_weight_draws else granularity)
                kept[path] |= ~random_bits.bernoulli(keys[path], rate, shape)
        seen = prune.mask_kernels(params, kept, kernels)
        if straight_through:
            seen = jax.tree.map(
                lambda leaf, shown: shown if shown is leaf else _pass_through(leaf, shown), params, seen
            )
        return seen, mask_vars

    return MaskTransform(init, apply, scores=scores, kernels=kernels)


@jax.custom_jvp
def _pass_through(leaf: Array, shown: Array) -> Array:
    """What is shown, with the gradient to the leaf."""
    del leaf
    return shown


_pass_through.defjvp(lambda primals, tangents: (primals[1], tangents[0]))
