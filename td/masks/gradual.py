"""Gradual magnitude pruning: weights are removed permanently, in steps, during training."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from td import criteria, select
from td.base import MaskTransform, MaskVars, Params, RandomKey, Step, StepCount
from td.errors import check_at_least, check_choice, check_fraction
from td.kernels import KERNELS, Patterns
from td.masks.fixed import fixed
from td.masks.lottery import draw_ticket


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
