"""Totals over all leaves: on an accelerator one reduction of one vector, on a CPU one of each leaf.

A GPU waits for every kernel that is launched; a CPU would wait for the copy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from td.base import Params
from td.kernels import Patterns, select_kernels
from td.prune import sparsity


def total(function: Callable[[Sequence[Array]], Array], leaves: Sequence[Array]) -> Array:
    """Apply a function of any number of arrays that sums over their entries."""
    return lax.platform_dependent(list(leaves), cpu=function, default=lambda arrays: function([_joined(arrays)]))


def norm(tree: Any) -> Array:
    """The Euclidean norm of all entries."""
    return total(optax.tree.norm, jax.tree.leaves(tree))


def zeros(params: Params, kernels: Patterns) -> Array:
    """The share of exact zeros in the kernels, `td.sparsity(...).total`."""

    def share(params: Params) -> Array:
        flags = _joined([kernel == 0 for kernel in select_kernels(params, kernels).values()])
        return jnp.sum(flags, dtype=jnp.uint32).astype(jnp.float32) / flags.size

    return lax.platform_dependent(params, cpu=lambda params: sparsity(params, kernels).total, default=share)


def clip_by_norm(limit: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`."""
    clip = optax.clip_by_global_norm(limit)

    def clipped(by: optax.GradientTransformation) -> Callable[[Any], Any]:
        return lambda updates: by.update(updates, optax.EmptyState())[0]

    return optax.stateless(
        lambda updates, _: lax.platform_dependent(updates, cpu=clipped(clip), default=clipped(optax.flatten(clip)))
    )


def _joined(arrays: Sequence[Array]) -> Array:
    return jnp.concatenate([jnp.ravel(array) for array in arrays])
