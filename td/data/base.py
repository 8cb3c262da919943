"""What a data set is: splits of examples, visited in an order that depends on seed and step alone."""

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from td.base import AnyArray
from td.data.task import Task
from td.errors import UserError


class Part(NamedTuple):
    """The rows of every batch that one of several hosts reads: the i-th of n, counted from 0.

    Example:
      >>> Part(1, 2).of(6)
      slice(3, 6, None)
    """

    number: int
    parts: int

    def of(self, rows: int) -> slice:
        """Which of so many rows; they divide evenly, as `make_mesh` has checked."""
        each = rows // self.parts
        return slice(self.number * each, (self.number + 1) * each)


WHOLE = Part(0, 1)
"""All rows."""


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
        """A batch of zeros, for its shape."""

    def train_batches(self, batch_size: int, seed: int, first: int, part: Part = WHOLE) -> Generator[Any, None, None]:
        """The batches of the steps from `first` on, a part of each, without end, every example once an epoch."""

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Any]:
        """Examples in a random order, as evaluation sees them, in batches of one shape, without end."""

    def eval_batches(self, batch_size: int) -> Iterator[Any]:
        """Every example exactly once."""


class Dataset(NamedTuple):
    """One data set.

    Attributes:
      train: what is learned from.
      evaluation: what is scored: the test split, or the held-out part of the training split where one is asked for.
      num_classes: number of labels.
      task: what a model is fed with and scored by.
      text: what turns tokens into sentences, for translation; else None.
      identity: changes with the user's own text, arrays or image files; empty for data sets that have a name.
      class_names: of images, in the order of their numbers; empty where they have none.
    """

    train: Examples
    evaluation: Examples
    num_classes: int
    task: Task
    text: Any = None
    identity: str = ""
    class_names: tuple[str, ...] = ()


def blank_images(rows: int, shape: tuple[int, ...]) -> Batch:
    """A batch of black images, all of weight 1."""
    return Batch(np.zeros((rows, *shape), np.uint8), np.zeros(rows, np.int32), np.ones(rows, np.float32))


def images_per_step(batch_size: int, examples: int) -> float:
    """The batch size; batches that are empty or larger than the split are refused.

    Example:
      >>> images_per_step(8, 4)
      Traceback (most recent call last):
        ...
      td.errors.UserError: data.batch_size=8 is out of range: give 1 to 4, the training examples
    """
    if not 0 < batch_size <= examples:
        raise UserError(f"data.batch_size={batch_size} is out of range: give 1 to {examples}, the training examples")
    return float(batch_size)


def held_out(total: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the examples to learn from, and of so many held out, chosen at random for good.

    Example:
      >>> [indices.shape for indices in held_out(5, 2)]
      [(3,), (2,)]
    """
    if not 0 < validation < total:
        raise UserError(f"data.validation={validation} is out of range: hold out 0 to {total - 1} examples")
    order = np.random.default_rng(0).permutation(total)
    return order[validation:], order[:validation]


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order in which an epoch visits its examples: a permutation of `range(size)`."""
    return np.random.default_rng([seed, epoch]).permutation(size)
