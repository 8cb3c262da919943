"""Losses: smoothed cross entropy, L2 over kernels, and the loss of each example."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from td.base import Params
from td.kernels import KERNELS, Patterns, every, select_kernels
from td.train.state import Experiment, predict


def l2_penalty(params: Params, weight: float, kernels: Patterns = KERNELS) -> Array:
    """`weight * sum(w^2) / 2` over every kernel, stem and logits included, biases and norms not.

    Example:
      >>> float(l2_penalty({"w": jnp.full((2, 2), 3.0), "b": jnp.ones(2)}, 0.5))
      9.0
    """
    if not weight:
        return jnp.zeros((), jnp.float32)
    chosen = select_kernels(params, every(kernels)).values()
    squares = [jnp.sum(jnp.square(kernel.astype(jnp.float32))) for kernel in chosen]
    return jnp.asarray(weight / 2 * sum(squares), jnp.float32)


def smoothed_cross_entropy(
    logits: Float[Array, "... classes"], labels: Int[Array, "..."], smoothing: float
) -> Float[Array, "..."]:
    """Cross entropy with a share of the target spread evenly over all classes, without one-hot targets.

    `(1 - smoothing) * -log p[label] + smoothing * mean over classes of -log p`.

    Example:
      >>> round(float(smoothed_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), 0.1)[0]), 4)  # log 4
      1.3863

    Source: Szegedy et al. 2016, section 7.
    """
    right: Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return right
    evenly = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
    return (1 - smoothing) * right + smoothing * evenly


def mean(values: Array, weights: Array) -> Array:
    """`sum(weights * values) / sum(weights)`.

    Example:
      >>> float(mean(jnp.array([1.0, 3.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
      2.0
    """
    return jnp.sum(values * weights) / jnp.sum(weights)


def make_losses(experiment: Experiment) -> Callable[[Params, Any, Any], Array]:
    """Build `(params, batch_stats, batch) -> [examples]`; an example with several targets has their mean loss."""

    def losses(params: Params, batch_stats: Any, batch: Any) -> Array:
        labels, weights = experiment.task.targets(batch)
        logits = predict(experiment, params, batch_stats, batch)
        each = weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        rows = len(labels)
        return each.reshape(rows, -1).sum(1) / jnp.maximum(weights.reshape(rows, -1).sum(1), 1)

    return losses
