"""The control of targeted dropout: the largest units are the targets, and the smallest are pruned, as always."""

import jax.numpy as jnp

import td
from td.criteria import Criterion
from td.kernels import KERNELS, Patterns


def largest_targets(
    target_proportion: float = 0.5, drop_rate: float = 0.5, *, kernels: Patterns = KERNELS
) -> td.MaskTransform:
    """Drop each of the largest units with probability `drop_rate`."""
    method = td.targeted("unit", target_proportion, drop_rate, criterion=f"{__name__}:SMALLEST_FIRST", kernels=kernels)
    return method._replace(scores=lambda params, mask_vars: {})  # pruned by magnitude


SMALLEST_FIRST = Criterion(lambda w, _: w, lambda w: 1 / (jnp.linalg.norm(w, axis=-2, keepdims=True) + 1e-9))
"""Importance that is highest for the smallest units."""
