"""What a data set is here: splits of examples, visited in an order that depends on seed and step alone."""

from collections.abc import Generator, Iterator
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8

from td.base import AnyArray
from td.data.part import WHOLE, Part
from td.data.task import Task
from td.errors import UserError


class Batch(NamedTuple):
    """Images and labels of one step; `weights` is 0 for the padding of the last evaluation batch, else 1."""

    images: AnyArray
    labels: AnyArray
    weights: AnyArray


@runtime_checkable
class Examples(Protocol):
    """One split. No method has a state: what a step sees depends on seed and step, so a resumed run sees the same."""

    @property
    def size(self) -> int:
        """Number of examples."""

    def examples_per_step(self, batch_size: int) -> float:
        """Examples of a training step, on average; UserError if there cannot be such batches."""

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        """The numbers of rows that training batches have."""

    def blank_batch(self, rows: int) -> Any:
        """A batch of nothing, for its shape."""

    def train_batches(self, batch_size: int, seed: int, first: int, part: Part = WHOLE) -> Generator[Any, None, None]:
        """The batches of the steps from `first` on, a part of each, without end, every example once an epoch."""

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Any]:
        """Examples in a random order, as evaluation sees them, in batches of one shape, without end."""

    def eval_batches(self, batch_size: int) -> Iterator[Any]:
        """Every example exactly once."""


class Split(NamedTuple):
    """Images, uint8 `[n, height, width, channels]`, and labels, int32 `[n]`, whole in memory: an `Examples`."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, "n"]

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.labels)

    def examples_per_step(self, batch_size: int) -> float:
        """The batch size, if there are so many images."""
        return images_per_step(batch_size, self.size)

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        """The batch size."""
        return (batch_size,)

    def blank_batch(self, rows: int) -> Batch:
        """Black images."""
        return blank_images(rows, self.images.shape[1:])

    def train_batches(self, batch_size: int, seed: int, first: int, part: Part = WHOLE) -> Generator[Batch, None, None]:
        """`train_batch` of every step from `first` on."""
        return (train_batch(self, step, batch_size, seed, part) for step in count(first))

    def train_places(
        self, batch_size: int, seed: int, first: int, part: Part = WHOLE
    ) -> Generator[np.ndarray, None, None]:
        """Where the examples of those batches stand, int32."""
        return (train_places(self.size, step, batch_size, seed)[part.of(batch_size)] for step in count(first))

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """The same: images are augmented later."""
        return self.train_batches(batch_size, seed, 0)

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """As the function of that name."""
        return eval_batches(self, min(batch_size, self.size))


class Dataset(NamedTuple):
    """One data set.

    Attributes:
      train: what is learned from.
      evaluation: what is scored: the test split, or the held-out part of the training split where one is asked for.
      num_classes: number of labels.
      task: what a model is fed with and scored by.
      text: what turns tokens into sentences, for translation; else None.
      identity: changes with the training text and its vocabulary; empty for images.
    """

    train: Examples
    evaluation: Examples
    num_classes: int
    task: Task
    text: Any = None
    identity: str = ""


def blank_images(rows: int, shape: tuple[int, ...]) -> Batch:
    """A batch of black images.

    Args:
      rows: how many.
      shape: of one.

    Returns:
      The batch, all of weight 1.

    Example:
      >>> blank_images(2, (8, 8, 1)).images.shape
      (2, 8, 8, 1)
    """
    return Batch(np.zeros((rows, *shape), np.uint8), np.zeros(rows, np.int32), np.ones(rows, np.float32))


def images_per_step(batch_size: int, examples: int) -> float:
    """The batch size; batches that are empty or larger than the split are refused.

    Args:
      batch_size: examples a batch.
      examples: examples of the split.

    Returns:
      The images of a training step.

    Raises:
      UserError: it is out of range.

    Example:
      >>> images_per_step(8, 4)
      Traceback (most recent call last):
        ...
      td.errors.UserError: data.batch_size=8 is out of range: give 1 to 4, the training examples
    """
    if not 0 < batch_size <= examples:
        raise UserError(f"data.batch_size={batch_size} is out of range: give 1 to {examples}, the training examples")
    return float(batch_size)


def hold_out(train: Split, test: Split, validation: int) -> tuple[Split, Split]:
    """Score the test split, or a fixed random part of the training split that is then not learned from.

    Args:
      train: the official training split.
      test: the official test split.
      validation: how many training examples to hold out; 0 scores the test split.

    Returns:
      What is learned from, and what is scored.

    Raises:
      UserError: nothing would be left to learn from.

    Example:
      >>> split = Split(np.zeros((5, 1, 1, 1), np.uint8), np.arange(5, dtype=np.int32))
      >>> rest, held = hold_out(split, split, validation=2)
      >>> sorted(rest.labels.tolist() + held.labels.tolist())
      [0, 1, 2, 3, 4]
    """
    if validation == 0:
        return train, test
    rest, held = held_out(train.size, validation)
    return Split(train.images[rest], train.labels[rest]), Split(train.images[held], train.labels[held])


def held_out(total: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """A fixed random choice of examples to hold out.

    Args:
      total: training examples.
      validation: how many of them to hold out.

    Returns:
      The places of the others, and of those held out.

    Raises:
      UserError: nothing would be left to learn from.

    Example:
      >>> [places.shape for places in held_out(5, 2)]
      [(3,), (2,)]
    """
    if not 0 < validation < total:
        raise UserError(f"data.validation={validation} is out of range: hold out 0 to {total - 1} examples")
    order = np.random.default_rng(0).permutation(total)
    return order[validation:], order[:validation]


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order in which an epoch visits its examples.

    Args:
      seed: the run's seed.
      epoch: counted from 0.
      size: number of examples.

    Returns:
      A permutation of `range(size)`.

    Example:
      >>> sorted(epoch_order(0, 1, 3).tolist())
      [0, 1, 2]
    """
    return np.random.default_rng([seed, epoch]).permutation(size)


def train_batch(split: Split, step: int, batch_size: int, seed: int, part: Part = WHOLE) -> Batch:
    """The batch of one step: examples `step * batch_size` onwards of an endless run of shuffled epochs.

    Every example is visited once an epoch; a batch may end one epoch and begin the next. There is no state, so a
    resumed run sees what the uninterrupted one would have.

    Args:
      split: the training split.
      step: the step.
      batch_size: examples a step.
      seed: the run's seed.
      part: the rows wanted.

    Returns:
      The `Batch`.

    Example:
      >>> split = Split(np.zeros((6, 1, 1, 1), np.uint8), np.arange(6, dtype=np.int32))
      >>> epoch = [label for step in range(3) for label in train_batch(split, step, 2, seed=0).labels.tolist()]
      >>> sorted(epoch)
      [0, 1, 2, 3, 4, 5]
    """
    chosen = train_places(split.size, step, batch_size, seed)[part.of(batch_size)]
    return Batch(split.images[chosen], split.labels[chosen], np.ones(len(chosen), np.float32))


def train_places(size: int, step: int, batch_size: int, seed: int) -> Int32[np.ndarray, "batch"]:
    """Where the examples of `train_batch` stand.

    Args:
      size: of the split.
      step: the step.
      batch_size: examples a step.
      seed: the run's seed.

    Returns:
      Indices of examples.

    Example:
      >>> sorted(np.concatenate([train_places(4, step, 2, seed=0) for step in range(2)]).tolist())
      [0, 1, 2, 3]
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(positions, size)
    chosen = np.empty(batch_size, np.int32)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = epoch_order(seed, int(epoch), size)[places[here]]
    return chosen


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
