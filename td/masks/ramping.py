"""Targeted dropout with rising proportions, and its variants: Xtreme and random targets."""

from td.base import MaskTransform, StepCount
from td.errors import check_at_least, check_fraction
from td.kernels import KERNELS, Patterns
from td.masks.targeted import targeted
from td.schedules import ramp


def ramping(
    granularity: str = "weight",
    target_proportion: float = 0.99,
    drop_rate: float = 0.99,
    stage: StepCount = 20_000,
    *,
    criterion: str = "magnitude",
    scope: str = "unit",
    min_kept: int = 0,
    per_weight_draws: bool = False,
    straight_through: bool = False,
    kernels: Patterns = KERNELS,
    evaluation: str = "dense",
) -> MaskTransform:
    """Ramping targeted dropout: both numbers rise during training, up to extreme sparsity.

    `target_proportion` rises linearly to 95 % of its value over one stage and to all of it over a second;
    `drop_rate` rises linearly over both.

    Args:
      granularity: "weight", "unit", "group" or "head".
      target_proportion: the final proportion, in [0, 1].
      drop_rate: the final probability, in [0, 1].
      stage: the length of one stage in steps; the paper's is 49 epochs of CIFAR-10.
      criterion, scope, min_kept, per_weight_draws, straight_through, kernels, evaluation: as in `targeted`.

    Returns:
      A `MaskTransform`, as of `targeted`.

    Raises:
      UserError: a proportion out of range, an unknown word or a stage below one step.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.masks.ramping(target_proportion=0.5, drop_rate=1.0, stage=10, kernels="w")
      >>> params = {"w": jnp.ones((4, 3))}
      >>> masked = [transform.apply(params, td.MaskVars(), key=jax.random.key(0), step=step)[0] for step in (0, 20)]
      >>> [float(td.sparsity(each, kernels=transform).total) for each in masked]
      [0.0, 0.5]

    Source: Gomez et al. 2019, section 5.3.
    """
    check_fraction("target_proportion", target_proportion)
    check_fraction("drop_rate", drop_rate)
    return targeted(
        granularity,
        ramp(target_proportion, stage),
        ramp(drop_rate, stage, knee=0.5),
        criterion=criterion,
        scope=scope,
        min_kept=min_kept,
        per_weight_draws=per_weight_draws,
        straight_through=straight_through,
        kernels=kernels,
        evaluation=evaluation,
    )


def xtreme(
    survivors: int = 3,
    drop_rate: float = 0.99,
    stage: StepCount = 20_000,
    *,
    kernels: Patterns = KERNELS,
    evaluation: str = "prune_targets",
) -> MaskTransform:
    """Xtreme-k: ramping to exactly k weights per unit, `gamma = (fan_in - k) / fan_in` for each kernel.

    Args:
      survivors: k; a unit with k inputs or fewer keeps all of them.
      drop_rate: the final probability, in [0, 1].
      stage: the length of one stage, in steps.
      kernels: as in `targeted`.
      evaluation: as in `targeted`; by default the network of k weights per unit.

    Returns:
      A `MaskTransform` without variables.

    Raises:
      UserError: a number out of range, or a stage below one step.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.masks.xtreme(survivors=3, stage=10, kernels="w")
      >>> params = {"w": jax.random.normal(jax.random.key(0), (50, 4))}
      >>> masked, _ = transform.apply(params, td.MaskVars(), key=None, step=20)
      >>> (masked["w"] != 0).sum(axis=0).tolist()
      [3, 3, 3, 3]

    Source: Gomez et al. 2019, section 5.3 (Xtreme).
    """
    check_at_least("survivors", survivors, whole=True)
    return ramping("weight", 1.0, drop_rate, stage, min_kept=survivors, kernels=kernels, evaluation=evaluation)


def random_targets(
    granularity: str = "weight",
    target_proportion: float = 0.75,
    drop_rate: float = 0.66,
    *,
    kernels: Patterns = KERNELS,
    evaluation: str = "dense",
) -> MaskTransform:
    """Targeted dropout by a fixed random ranking: the control for ranking by magnitude.

    Args:
      granularity, target_proportion, drop_rate, kernels, evaluation: as in `targeted`.

    Returns:
      A `MaskTransform` whose `stats` and `scores` are the ranking, so that pruning follows it.

    Raises:
      UserError: a proportion out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform, params = td.masks.random_targets(drop_rate=1.0, kernels="w"), {"w": jnp.ones((8, 2))}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> first, second = (transform.apply(params, mask_vars, key=jax.random.key(1), step=s)[0]["w"] for s in (0, 9))
      >>> bool((first == second).all()), int((first != 0).sum())
      (True, 4)

    Source: Gomez et al. 2019, section 5.4 (random targets).
    """
    return targeted(
        granularity, target_proportion, drop_rate, criterion="random", kernels=kernels, evaluation=evaluation
    )
