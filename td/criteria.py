"""Importances of weights and units, by which selection ranks. Higher = kept longer, never negative.

A criterion is a product of two parts: the *saliency* of one weight, a signed number, and a function from
the saliencies of a column to the importance of its unit.

==========  ========================  =========================  ====================================
criterion   saliency of a weight      importance of a unit       measured first
==========  ========================  =========================  ====================================
magnitude   `w`                       L2 norm                    nothing
l1          `w`                       sum of magnitudes          nothing
random      `u ~ U(0, 1)`             the column's first number  `u`, drawn once
taylor      `w g`                     magnitude of the sum       `g`, the gradient of the loss
fisher      `w^2 E[g_n^2] / 2`        sum                        `E[g_n^2]`, over examples n
activation  `w x`                     L2 norm                    `x`, the L2 norm of the weight's input
obs         `w^2 / [H^-1]_qq`         sum                        that, `H = X'X` of the inputs, as each weight goes
==========  ========================  =========================  ====================================
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from td.errors import UserError, check_choice, entry

COUPLED = ("group", "head")
"""Units that the function ties together, and attention heads: they need the network's structure."""

OF_KERNELS = ("weight", "unit")
GRANULARITIES = (*OF_KERNELS, *COUPLED)


def _norm(saliency: Array) -> Array:
    return jnp.linalg.norm(saliency.astype(jnp.float32), axis=-2, keepdims=True)


def _sum_of_magnitudes(saliency: Array) -> Array:
    return jnp.sum(jnp.abs(saliency.astype(jnp.float32)), axis=-2, keepdims=True)


def _magnitude_of_sum(saliency: Array) -> Array:
    return jnp.abs(jnp.sum(saliency.astype(jnp.float32), axis=-2, keepdims=True))


def _product(weights: Array, measured: Array) -> Array:
    return weights.astype(jnp.float32) * measured.astype(jnp.float32)


class Criterion(NamedTuple):
    """One way to rank.

    Attributes:
      saliency: `(matrix, measured) -> [*stack, fan_in, units]`.
      of_unit: `saliency -> [*stack, 1, units]`.
      measures: what must be measured first: "", "draws", "gradient", "squared_gradient", "input_norm" or
        "removal_loss".
    """

    saliency: Callable[[Array, Array], Array]
    of_unit: Callable[[Array], Array]
    measures: str = ""


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(lambda w, _: w, _norm),
    "l1": Criterion(lambda w, _: w, _sum_of_magnitudes),
    "random": Criterion(lambda w, draws: draws, lambda draws: draws[..., :1, :], "draws"),
    "taylor": Criterion(_product, _magnitude_of_sum, "gradient"),
    "fisher": Criterion(
        lambda w, squares: _product(w, _product(w, squares)) / 2, _sum_of_magnitudes, "squared_gradient"
    ),
    "activation": Criterion(_product, _norm, "input_norm"),
    "obs": Criterion(lambda w, losses: losses, _sum_of_magnitudes, "removal_loss"),
}
"""The criteria by name."""

WITHOUT_DATA = tuple(name for name, criterion in CRITERIA.items() if criterion.measures in ("", "draws"))
"""The criteria that targeting during training can use."""


def criterion_of(name: str) -> Criterion:
    """Find a criterion by its name or import path."""
    found = entry(CRITERIA, name, "criterion")
    if not isinstance(found, Criterion):
        raise UserError(f"criterion {name!r} is not a td.criteria.Criterion: give one")
    return found


def check_without_data(criterion: str) -> None:
    """Reject a criterion that targeting during training cannot use: one that needs data."""
    if ":" not in criterion:
        check_choice("criterion", criterion, WITHOUT_DATA)
    elif criterion_of(criterion).measures:
        raise UserError(
            f"criterion {criterion!r} needs data, which targeting during training lacks: use one without measurements"
        )


def importance(
    matrix: Float[Array, "*stack fan_in units"],
    granularity: str,
    criterion: str = "magnitude",
    measured: Float[Array, "..."] | None = None,
) -> Float[Array, "*stack rows units"]:
    """Compute the importance of each weight, or each unit, of one kernel.

    Args:
      matrix: one kernel as `[*stack, fan_in, units]`.
      granularity: "weight" or "unit".
      criterion: a key of `CRITERIA`, or the import path of a `Criterion` of the user's own.
      measured: what the criterion measures first, of the same shape or with 1 for units; None where that is nothing.

    Returns:
      `[*stack, fan_in, units]` for weights, `[*stack, 1, units]` float32 for units; L2 norms below 1e-19 or above 1e19,
      whose squares float32 does not have, come out as 0 or infinity.

    Raises:
      UserError: unknown word, or a criterion without its measurement.

    Example:
      >>> import jax.numpy as jnp
      >>> importance(jnp.array([[3.0, -1.0], [-4.0, 0.0]]), "unit").tolist()
      [[5.0, 1.0]]
      >>> importance(jnp.array([[3.0, -1.0], [-4.0, 0.0]]), "unit", "l1").tolist()
      [[7.0, 1.0]]

    Source: magnitude: Gomez et al. 2019, equations 2 (units) and 3 (weights); taylor: Molchanov et al. 2017; fisher:
    LeCun et al. 1990 (Optimal Brain Damage) with the diagonal of Theis et al. 2018; activation: Sun et al. 2024;
    obs: Hassibi and Stork 1993 (Optimal Brain Surgeon), by layer as Dong et al. 2017, greedily as Frantar et al. 2022.
    """
    return jnp.abs(saliency(matrix, granularity, criterion, measured))


def saliency(
    matrix: Float[Array, "*stack fan_in units"],
    granularity: str,
    criterion: str = "magnitude",
    measured: Float[Array, "..."] | None = None,
) -> Float[Array, "*stack rows units"]:
    """Compute the importance up to its sign, which selection ignores: one pass over memory fewer for weights.

    Args:
      matrix: as for `importance`, like all the others.
      granularity: "weight" or "unit".
      criterion: a key of `CRITERIA`.
      measured: what the criterion measures first.

    Returns:
      The saliencies of weights, with their sign, or the importances of units.

    Raises:
      UserError: as `importance`.

    Example:
      >>> import jax.numpy as jnp
      >>> saliency(jnp.array([[3.0], [-4.0]]), "weight").tolist()
      [[3.0], [-4.0]]
    """
    check_choice("granularity", granularity, OF_KERNELS)
    chosen = criterion_of(criterion)
    if measured is None and chosen.measures:
        raise UserError(
            f"criterion {criterion!r} needs its {chosen.measures.replace('_', ' ')} measured first: "
            f"give scores=td.importance.importances({criterion!r}, ...) to td.prune_mask"
        )
    found = chosen.saliency(matrix, matrix if measured is None else measured)
    return found if granularity == "weight" else chosen.of_unit(found)
