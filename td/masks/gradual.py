"""Pruning by magnitude during training: gradually, or in rounds that rewind (lottery tickets)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from td import criteria, select
from td._entries import entries_of
from td.base import MaskTransform, MaskVars, Params, RandomKey, Step, StepCount, carried
from td.errors import check_at_least, check_choice, check_fraction
from td.kernels import KERNELS, Patterns
from td.masks.fixed import fixed


def gradual(
    granularity: str = "weight",
    proportion: float = 0.9,
    begin: StepCount = 2_000,
    end: StepCount = 60_000,
    interval: StepCount = 100,
    *,
    scope: str = "layer",
    kernels: Patterns = KERNELS,
) -> MaskTransform:
    """Gradual magnitude pruning with a cubic schedule.

    The proportion removed at step t is `proportion * (1 - (1 - (t - begin) / (end - begin))^3)`, 0 before `begin` and
    `proportion` after `end`. The masks change every `interval` steps and at `end`. Removed weights never come back.

    Args:
      granularity: as in `td.targeted`.
      proportion: the final proportion, in [0, 1].
      begin: the first step that removes weights.
      end: the step of the last change.
      interval: steps between changes of the masks.
      scope: where ranking happens, as in `td.prune_mask`.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` whose `stats` are `{path: mask}`, True = kept. Call `prune` after every update.

    Raises:
      UserError: a number out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.masks.gradual(proportion=0.8, begin=0, end=20, interval=10, kernels="w")
      >>> params = {"w": jax.random.normal(jax.random.key(0), (100, 4))}
      >>> mask_vars, zeros = transform.init(jax.random.key(0), params), []
      >>> for step in (0, 10, 15, 20):
      ...     masked, mask_vars = transform.apply(params, mask_vars, key=jax.random.key(0), step=step)
      ...     zeros.append(round(float(td.sparsity(masked, transform).total), 2))
      >>> zeros
      [0.0, 0.7, 0.7, 0.8]

    Source: Zhu and Gupta 2017, equation 1.
    """
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    check_fraction("proportion", proportion)
    select.check_scope(scope, granularity)
    check_at_least("begin", begin, whole=True)
    check_at_least("end", end, begin + 1, whole=True)
    check_at_least("interval", interval, 1, whole=True)

    fixed_mask = fixed(granularity, kernels)

    def removed(step: Array) -> Array:
        done = jnp.clip((step.astype(jnp.float32) - begin) / (end - begin), 0.0, 1.0)
        return proportion * (1 - (1 - done) ** 3)

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        now = jnp.asarray(step)

        def change() -> dict[str, Array]:
            stored = lax.stop_gradient(params)
            return draw_ticket(stored, mask_vars, removed(now), granularity, scope, kernels=kernels).stats

        if key is not None:
            due = (now >= begin) & (((now - begin) % interval == 0) | (now == end))
            mask_vars = mask_vars._replace(stats=lax.cond(due, change, lambda: mask_vars.stats))
        return fixed_mask.apply(params, mask_vars, key=key, step=step)

    return fixed_mask._replace(apply=apply)


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
