"""Lottery tickets: train, prune, rewind to an early step and train again under the masks."""

import jax.numpy as jnp
from jaxtyping import Array

from td import criteria, select
from td._entries import entries_of
from td.base import MaskTransform, MaskVars, Params, StepCount, carried
from td.errors import check_at_least, check_choice, check_fraction
from td.kernels import KERNELS, Patterns
from td.masks.fixed import fixed


def lottery(
    granularity: str = "weight",
    rounds: int = 3,
    rate: float = 0.5,
    rewind: StepCount = 500,
    *,
    scope: str = "layer",
    kernels: Patterns = KERNELS,
) -> MaskTransform:
    """Lottery-ticket rewinding: train, prune by magnitude, rewind to an early step, train again.

    The transform applies the masks in `stats`, all True in round 0, in training and at evaluation. `draw_ticket` makes
    those of the next round; `td-train` runs the rounds.

    Args:
      granularity: as in `td.targeted`.
      rounds: rounds of pruning and training again.
      rate: the proportion of the remaining weights that each round removes, in [0, 1].
      rewind: the step to rewind to.
      scope: where ranking happens, as in `td.prune_mask`.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` whose `stats` are `{path: mask}`, True = kept. Call `prune` after every update.

    Raises:
      UserError: a number out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform, params = td.masks.lottery(rate=0.5, kernels="w"), {"w": jnp.array([[1.0, -4.0], [-2.0, 3.0]])}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> ticket = td.masks.draw_ticket(params, mask_vars, removed=0.5, kernels="w")
      >>> transform.apply(params, ticket, key=None, step=0)[0]["w"].tolist()
      [[0.0, -4.0], [0.0, 3.0]]

    Source: Frankle and Carbin 2019; rewinding: Frankle et al. 2020.
    """
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    check_fraction("rate", rate)
    select.check_scope(scope, granularity)
    check_at_least("rounds", rounds, whole=True)
    check_at_least("rewind", rewind, whole=True)

    return fixed(granularity, kernels)


def draw_ticket(
    params: Params,
    mask_vars: MaskVars,
    removed: float | Array,
    granularity: str = "weight",
    scope: str = "layer",
    *,
    kernels: Patterns = KERNELS,
) -> MaskVars:
    """Draw the masks of the next round: remove the weights or units of lowest magnitude.

    Args:
      params: the trained parameters.
      mask_vars: the masks they were trained under; what those removed stays removed.
      removed: the proportion of all weights, or units, to remove in total: after round r, `1 - (1 - rate)^r`.
      granularity: as in `td.targeted`.
      scope: where ranking happens.
      kernels: as in `lottery`.

    Returns:
      The new `MaskVars`.

    Example:
      >>> import jax.numpy as jnp
      >>> mask_vars = MaskVars(stats={"w": jnp.array([[False], [True], [True], [True]])})
      >>> params = {"w": jnp.array([[9.0], [1.0], [3.0], [2.0]])}
      >>> draw_ticket(params, mask_vars, 0.5, kernels="w").stats["w"].ravel().tolist()
      [False, False, True, True]
    """
    before = carried(mask_vars.stats)
    scores = entries_of(params, granularity, kernels).saliencies()
    ranked = {name: select.rank_zeros_first(jnp.abs(score), before[name]) for name, score in scores.items()}
    kept = select.keep_masks(ranked, removed, granularity, scope)
    return mask_vars._replace(stats={path: mask & before[path] for path, mask in kept.items()})
