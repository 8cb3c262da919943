"""Statistics of normalisation layers after pruning, estimated from batches."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from td.errors import UserError

Update = Callable[[Any, Any], Any]
"""`(statistics, batch) -> statistics`: the running statistics after one batch in training mode."""

FAR = 1024.0
"""Start of a running average, large enough that rounding does not hide the momentum."""


def recalibrate(update: Update, statistics: Any, batches: Iterable[Any]) -> Any:
    """Estimate the running statistics of BatchNorm again, for a network that was pruned. No weight changes.

    Running statistics describe the activations of the network that was trained; pruning shifts the activations. The
    result is the mean over batches of each batch's own statistics, whatever the momentum of the running average.

    Args:
      update: `(statistics, batch) -> statistics`: runs the pruned network on a batch in training mode and returns the
        updated running average, `m * statistics + (1 - m) * those of the batch`, for any momentum `m` below 1.
      statistics: The running statistics of the trained network, a pytree; only shapes and dtypes matter.
      batches: Training batches without augmentation, all of one shape.

    Returns:
      The new statistics, a tree like `statistics`.

    Raises:
      UserError: There are no statistics or no batches, or the result is not finite.

    Example:
      >>> update = lambda running, batch: {"mean": 0.75 * running["mean"] + 0.25 * batch.mean(0)}
      >>> stale = {"mean": jnp.array([9.0])}
      >>> recalibrate(update, stale, [jnp.array([[1.0], [3.0]]), jnp.array([[5.0], [7.0]])])["mean"].tolist()
      [4.0]

    Source: Li et al. 2020 (EagleEye, ECCV): stale statistics misjudge pruned networks.
    """
    if not jax.tree.leaves(statistics):
        raise UserError("nothing to recalibrate: this model has no BatchNorm statistics")
    total, count, momentum = jax.tree.map(jnp.zeros_like, statistics), 0, None
    for batch in batches:
        momentum = _momentum(update, total, batch) if momentum is None else momentum
        total, count = add_batch(update, total, batch), count + 1
    if not count:
        raise UserError("nothing to recalibrate on: give at least one batch")
    mean = jax.tree.map(lambda leaf, momentum: leaf / count / (1 - momentum), total, momentum)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(mean)):
        raise UserError("recalibrated statistics are not finite: `update` must run the network in training mode")
    return mean


@partial(jax.jit, static_argnums=0)
def add_batch(update: Update, total: Any, batch: Any) -> Any:
    """Add the statistics of one batch, started from zero, to a sum."""
    return jax.tree.map(jnp.add, total, update(jax.tree.map(jnp.zeros_like, total), batch))


@partial(jax.jit, static_argnums=0)
def _momentum(update: Update, zeros: Any, batch: Any) -> Any:
    """Measure the slope of a running average in what it starts from; a derivative fails where NNX stops gradients."""
    start = jax.tree.map(lambda leaf: jnp.full_like(leaf, FAR), zeros)
    return jax.tree.map(lambda far, near: (far - near) / FAR, update(start, batch), update(zeros, batch))
