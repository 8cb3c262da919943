"""What a data set is here: whole arrays in memory, and an order of visits that depends on seed and step alone."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int32, UInt8

from td.errors import UserError


class Split(NamedTuple):
    """Images, uint8 `[n, height, width, channels]`, and labels, int32 `[n]`."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, "n"]


class Dataset(NamedTuple):
    """One data set.

    Attributes:
      train: what is learned from.
      evaluation: what is scored: the test split, or the held-out part of the training split where one is asked for.
      num_classes: number of labels.
    """

    train: Split
    evaluation: Split
    num_classes: int


AnyArray = Array | np.ndarray
"""On the host, or on a device."""


class Batch(NamedTuple):
    """Images and labels of one step; `weights` is 0 for the padding of the last evaluation batch, else 1."""

    images: AnyArray
    labels: AnyArray
    weights: AnyArray


def hold_out(train: Split, test: Split, num_classes: int, validation: int) -> Dataset:
    """Score the test split, or a fixed random part of the training split that is then not learned from.

    Args:
      train: the official training split.
      test: the official test split.
      num_classes: number of labels.
      validation: how many training examples to hold out; 0 scores the test split.

    Returns:
      The `Dataset`.

    Raises:
      UserError: nothing would be left to learn from.

    Example:
      >>> split = Split(np.zeros((5, 1, 1, 1), np.uint8), np.arange(5, dtype=np.int32))
      >>> held = hold_out(split, split, 5, validation=2)
      >>> sorted(held.train.labels.tolist() + held.evaluation.labels.tolist())
      [0, 1, 2, 3, 4]
    """
    if validation == 0:
        return Dataset(train, test, num_classes)
    total = len(train.labels)
    if not 0 < validation < total:
        raise UserError(f"data.validation={validation} is out of range: hold out 0 to {total - 1} examples")
    order = np.random.default_rng(0).permutation(total)
    held, rest = order[:validation], order[validation:]
    return Dataset(
        Split(train.images[rest], train.labels[rest]), Split(train.images[held], train.labels[held]), num_classes
    )


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


def train_batch(split: Split, step: int, batch_size: int, seed: int) -> Batch:
    """The batch of one step: examples `step * batch_size` onwards of an endless run of shuffled epochs.

    Every example is visited once an epoch; a batch may end one epoch and begin the next. There is no state, so a
    resumed run sees what the uninterrupted one would have.

    Args:
      split: the training split.
      step: the step.
      batch_size: examples a step.
      seed: the run's seed.

    Returns:
      The `Batch`.

    Example:
      >>> split = Split(np.zeros((6, 1, 1, 1), np.uint8), np.arange(6, dtype=np.int32))
      >>> epoch = [label for step in range(3) for label in train_batch(split, step, 2, seed=0).labels.tolist()]
      >>> sorted(epoch)
      [0, 1, 2, 3, 4, 5]
    """
    size = len(split.labels)
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(positions, size)
    chosen = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = _epoch_order(seed, int(epoch), size)[places[here]]
    return Batch(split.images[chosen], split.labels[chosen], np.ones(batch_size, np.float32))


def eval_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Every example exactly once, in order; the last batch is filled up with examples of weight 0.

    Args:
      split: what is scored.
      batch_size: examples a batch.

    Yields:
      Batches of one shape.

    Example:
      >>> split = Split(np.zeros((5, 1, 1, 1), np.uint8), np.arange(5, dtype=np.int32))
      >>> [batch.weights.tolist() for batch in eval_batches(split, 3)]
      [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    """
    size = len(split.labels)
    for start in range(0, size, batch_size):
        places = np.arange(start, start + batch_size)
        weights = (places < size).astype(np.float32)
        chosen = np.minimum(places, size - 1)
        yield Batch(split.images[chosen], split.labels[chosen], weights)
