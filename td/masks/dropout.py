"""Dropout of weights (DropConnect) or units: the baseline without targets."""

import jax.numpy as jnp

from td import _random, _tree, criteria
from td._entries import entries_of
from td.base import Fraction, MaskTransform, MaskVars, Params, RandomKey, Step, no_vars
from td.errors import check_choice, check_fraction
from td.kernels import KERNELS, Patterns, kernel_keys
from td.schedules import value_at


def dropout(
    granularity: str = "weight",
    drop_rate: Fraction = 0.25,
    *,
    rescale: bool = True,
    kernels: Patterns = KERNELS,
) -> MaskTransform:
    """Drop every weight, or every unit, with the same probability and divide the others by `1 - drop_rate`.

    Args:
      granularity: "weight" draws per weight, "unit" per unit, "group" and "head" per group or head of a structure.
      drop_rate: a probability in [0, 1] or a function of the step; the paper's is `gamma * alpha`.
      rescale: divide by `1 - drop_rate`, which preserves the expectation.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` without variables; at evaluation it is the identity.

    Raises:
      UserError: a rate out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.dropout(drop_rate=0.5, kernels="w")
      >>> dropped, _ = transform.apply({"w": jnp.ones((9, 9))}, td.MaskVars(), key=jax.random.key(0), step=0)
      >>> sorted(set(dropped["w"].ravel().tolist()))
      [0.0, 2.0]

    Source: Srivastava et al. 2014 (units); Wan et al. 2013 (weights).
    """
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    check_fraction("drop_rate", drop_rate, schedule=True)

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        if key is None:
            return params, mask_vars
        rate, entries = value_at(drop_rate, step), entries_of(params, granularity, kernels)
        # At rate 1 a divisor of 1 keeps the unused branch of `where`, and its gradient, finite.
        divisor = jnp.where(rate < 1, 1 - rate, 1) if rescale else jnp.ones(())
        keys = kernel_keys(key, step, entries.shapes)
        kept = {name: ~_random.bernoulli(keys[name], rate, shape) for name, shape in entries.shapes.items()}
        return _tree.replace_leaves(params, entries.masked(kept, divisor)), mask_vars

    return MaskTransform(no_vars, apply, kernels=kernels)
