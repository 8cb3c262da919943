"""Importances of weights and units: what selection ranks by. Higher = kept longer, never negative."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from td.errors import check_choice

GRANULARITIES = ("weight", "unit")

RANKED_AXIS = {"weight": 0, "unit": 1}
"""The axis of the `[fan_in, units]` view along which entries compete."""


def magnitude(matrix: Float[Array, "fan_in units"], granularity: str) -> Float[Array, "rows units"]:
    """Rank weights by `|W[i, o]|` and units by `||W[:, o]||_2`.

    Args:
      matrix: one kernel as `[fan_in, units]`, or per-weight importances of that shape.
      granularity: "weight" or "unit".

    Returns:
      `[fan_in, units]` in the kernel's dtype for weights, `[1, units]` float32 for units.

    Raises:
      UserError: unknown granularity.

    Example:
      >>> import jax.numpy as jnp
      >>> magnitude(jnp.array([[3.0, -1.0], [-4.0, 0.0]]), "unit").tolist()
      [[5.0, 1.0]]

    Source: Gomez et al. 2019, equations 2 (units) and 3 (weights).
    """
    check_choice("granularity", granularity, GRANULARITIES)
    if granularity == "weight":
        return jnp.abs(matrix)
    return jnp.linalg.norm(matrix.astype(jnp.float32), axis=0, keepdims=True)
