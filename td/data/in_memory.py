"""Images whole in memory, visited in an order that depends on seed and step alone."""

from collections.abc import Generator, Iterator
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from td.data.base import WHOLE, Batch, Part, blank_images, epoch_order, held_out, images_per_step

# Every step asks for the orders of its epochs, and a population for those of every seed. 64 of 60,000 images are 31 MB.
_order = lru_cache(maxsize=64)(epoch_order)


class Split(NamedTuple):
    """Images, uint8 `[n, height, width, channels]`, and labels, int32 `[n]`: an `Examples`."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, "n"]

    @property
    def size(self) -> int:
        return len(self.labels)

    def examples_per_step(self, batch_size: int) -> float:
        return images_per_step(batch_size, self.size)

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        return (batch_size,)

    def blank_batch(self, rows: int) -> Batch:
        return blank_images(rows, self.images.shape[1:])

    def train_indices(self, step: int, batch_size: int, seed: int) -> Int32[np.ndarray, "batch"]:
        """Examples `step * batch_size` onwards of an endless run of shuffled epochs."""
        epochs, positions = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), self.size)
        chosen = np.empty(batch_size, np.int32)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = _order(seed, int(epoch), self.size)[positions[here]]
        return chosen

    def train_batch(self, step: int, batch_size: int, seed: int, part: Part = WHOLE) -> Batch:
        """The batch of one step: every example once an epoch, and the same after a resume, since nothing is carried."""
        chosen = self.train_indices(step, batch_size, seed)[part.of(batch_size)]
        return Batch(self.images[chosen], self.labels[chosen], np.ones(len(chosen), np.float32))

    def train_batches(self, batch_size: int, seed: int, first: int, part: Part = WHOLE) -> Generator[Batch, None, None]:
        return (self.train_batch(step, batch_size, seed, part) for step in count(first))

    def train_index_batches(
        self, batch_size: int, seed: int, first: int, part: Part = WHOLE
    ) -> Generator[np.ndarray, None, None]:
        """The indices of the examples of those batches."""
        return (self.train_indices(step, batch_size, seed)[part.of(batch_size)] for step in count(first))

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        return self.train_batches(batch_size, seed, 0)  # images are augmented in the step

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every example exactly once, in order; the last batch is padded with examples of weight 0."""
        batch_size = min(batch_size, self.size)
        for start in range(0, self.size, batch_size):
            indices = np.arange(start, start + batch_size)
            chosen = np.minimum(indices, self.size - 1)
            yield Batch(self.images[chosen], self.labels[chosen], (indices < self.size).astype(np.float32))


def hold_out(train: Split, test: Split, validation: int) -> tuple[Split, Split]:
    """What is learned from and what is scored: the test split, or so many training examples, chosen at random for good.

    Example:
      >>> split = Split(np.zeros((5, 1, 1, 1), np.uint8), np.arange(5, dtype=np.int32))
      >>> rest, chosen = hold_out(split, split, validation=2)
      >>> sorted(rest.labels.tolist() + chosen.labels.tolist())
      [0, 1, 2, 3, 4]
    """
    if validation == 0:
        return train, test
    rest, chosen = held_out(train.size, validation)
    return Split(train.images[rest], train.labels[rest]), Split(train.images[chosen], train.labels[chosen])
