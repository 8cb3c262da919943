"""Targeted dropout: drop the weights or units that pruning would remove, and the network learns to do without."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import criteria, prune, tree
from td.base import MaskTransform, MaskVars, Params, RandomKey, Share, Step, no_vars
from td.errors import check_choice, check_share
from td.schedules import ramp
from td.select import value_at

EVALUATIONS = ("dense", "prune_targets")


def targeted(
    granularity: str = "weight",
    target_proportion: Share = 0.75,
    drop_rate: Share = 0.66,
    *,
    kernels: tree.Patterns = tree.KERNELS,
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
      kernels: regular expressions on paths; by default all kernels but `stem` and `logits`.
      evaluation: what `apply(key=None)` returns: "dense", the whole network, or "prune_targets", the network
        without its candidates, as the paper's weight columns were scored. A key makes it stochastic.

    Returns:
      A `MaskTransform` that carries nothing.

    Raises:
      UserError: a share out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.targeted(target_proportion=0.5, drop_rate=1.0)
      >>> params = {"w": jnp.array([[1.0, -4.0], [-2.0, 3.0]])}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> transform.apply(params, mask_vars, key=jax.random.key(1), step=0)[0]["w"].tolist()
      [[0.0, -4.0], [-2.0, 0.0]]

    Source: Gomez et al. 2019, section 3.
    """
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    check_choice("evaluation", evaluation, EVALUATIONS)
    check_share("target_proportion", target_proportion)
    check_share("drop_rate", drop_rate)

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        if key is None and evaluation == "dense":
            return params, mask_vars

        def drop(path: str, kernel: Array) -> Array:
            matrix = tree.as_matrix(kernel)
            kept = prune.keep_mask(
                criteria.magnitude(matrix, granularity), value_at(target_proportion, step), granularity
            )
            if key is not None:
                rate = value_at(drop_rate, step)
                kept |= ~jax.random.bernoulli(tree.kernel_key(key, step, path), rate, kept.shape)
            return jnp.where(kept, matrix, jnp.zeros_like(matrix)).reshape(kernel.shape)

        return tree.map_kernels(drop, params, kernels), mask_vars

    return MaskTransform(no_vars, apply)


def ramping(
    granularity: str = "weight",
    target_proportion: float = 0.99,
    drop_rate: float = 0.99,
    stage: int = 20_000,
    *,
    kernels: tree.Patterns = tree.KERNELS,
    evaluation: str = "dense",
) -> MaskTransform:
    """Ramping targeted dropout: both numbers rise during training, which reaches extreme sparsity.

    `target_proportion(t)` rises linearly to 95 % of its value over one stage and to all of it over a second;
    `drop_rate(t)` rises linearly over both.

    Args:
      granularity: "weight" or "unit".
      target_proportion: the final share, in [0, 1].
      drop_rate: the final probability, in [0, 1].
      stage: the length of one stage, in steps; the paper's is 49 epochs of CIFAR-10.
      kernels: as in `targeted`.
      evaluation: as in `targeted`.

    Returns:
      A `MaskTransform` that carries nothing.

    Raises:
      UserError: a share out of range, an unknown word or a stage below one step.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.masks.ramping(target_proportion=0.5, drop_rate=1.0, stage=10)
      >>> params = {"w": jnp.ones((4, 3))}
      >>> [float(td.sparsity(transform.apply(params, td.MaskVars(), key=jax.random.key(0), step=s)[0]).total)
      ...  for s in (0, 20)]
      [0.0, 0.5]

    Source: Gomez et al. 2019, section 5.3.
    """
    check_share("target_proportion", target_proportion)
    check_share("drop_rate", drop_rate)
    return targeted(
        granularity,
        ramp(target_proportion, stage),
        ramp(drop_rate, stage, knee=0.5),
        kernels=kernels,
        evaluation=evaluation,
    )
