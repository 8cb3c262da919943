"""Penalties on the parameters: L1 and group lasso."""

import jax.numpy as jnp
from jaxtyping import Array

from td import criteria
from td._entries import entries_of
from td.base import MaskTransform, Params, Step, identity
from td.errors import check_at_least, check_choice
from td.kernels import KERNELS, Patterns, matrices


def l1(cost: float = 0.1, reduction: str = "mean", *, kernels: Patterns = KERNELS) -> MaskTransform:
    """L1: `cost * sum |W|`, or `cost * sum over kernels of mean |W|` as in the paper's code.

    Args:
      cost: beta; the paper's are 0.1 for weights and 0.01 for units, with "mean".
      reduction: "sum" or "mean" over a kernel; stacked kernels count one by one.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` with a penalty.

    Raises:
      UserError: a negative cost or an unknown word.

    Example:
      >>> import jax.numpy as jnp, td
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.full((2, 2), 0.5)}
      >>> [float(td.masks.l1(1.0, reduction, kernels=".*").penalty(params, (), 0)) for reduction in ("sum", "mean")]
      [6.0, 2.5]

    Source: Tibshirani 1996; constants: Gomez et al. 2019, Table 2, and its code.
    """
    check_at_least("cost", cost)
    check_choice("reduction", reduction, ("sum", "mean"))
    reduce = jnp.sum if reduction == "sum" else jnp.mean

    def penalty(params: Params, gates: object, step: Step) -> Array:
        del gates, step
        magnitudes = [jnp.abs(matrix.astype(jnp.float32)) for matrix in matrices(params, kernels).values()]
        terms = [jnp.sum(reduce(each, axis=(-2, -1))) for each in magnitudes]
        return jnp.float32(cost) * sum(terms, start=jnp.zeros((), jnp.float32))

    return identity()._replace(penalty=penalty, kernels=kernels)


def group_lasso(cost: float = 1e-4, over: str = "unit", *, kernels: Patterns = KERNELS) -> MaskTransform:
    """Group lasso: `cost * sum over units of sqrt(fan_in) * ||W[:, o]||_2`, which empties whole units.

    Args:
      cost: the weight of the penalty.
      over: "unit", or "group" or "head" for all weights that make one, of a structure.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` with a penalty. A unit of zeros gets the subgradient 0.

    Raises:
      UserError: a negative cost.

    Example:
      >>> import jax.numpy as jnp, td
      >>> transform = td.masks.group_lasso(1.0, kernels="w")
      >>> float(transform.penalty({"w": jnp.array([[3.0], [0.0], [4.0], [0.0]])}, (), 0))
      10.0

    Source: Yuan and Lin 2006; for units of networks: Wen et al. 2016.
    """
    check_at_least("cost", cost)
    check_choice("over", over, criteria.GRANULARITIES[1:])

    def penalty(params: Params, gates: object, step: Step) -> Array:
        del gates, step
        entries = entries_of(params, over, kernels)
        terms = [jnp.sum(_root(squares)) * jnp.sqrt(jnp.float32(size)) for squares, size in entries.squares()]
        return jnp.float32(cost) * sum(terms, start=jnp.zeros((), jnp.float32))

    return identity()._replace(penalty=penalty, kernels=kernels)


def _root(squares: Array) -> Array:
    """The square root; it has an infinite derivative at 0, so there the root of 1 is taken and discarded."""
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
