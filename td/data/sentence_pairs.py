"""Sentence pairs as tokens, in batches of a few shapes: a batch has sentences of about one length."""

from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from td.base import AnyArray
from td.data.base import WHOLE, Shard, epoch_order
from td.errors import UserError

ROWS = 8
"""Divides the rows of a training batch, so that up to 8 devices can share it."""


class TextBatch(NamedTuple):
    """Tokens `[rows, length]` of sentences and their translations, padded with 0."""

    source: AnyArray
    target: AnyArray


class Sentences(NamedTuple):
    """Concatenated sentences, each ending with the token `td.data.base.END`, and the index behind each of them."""

    tokens: Int32[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "n"]

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int]]) -> "Sentences":
        """Concatenate lists of tokens, which take ten times the memory."""
        tokens, ends = array("i"), array("q")
        for sentence in sentences:
            tokens.extend(sentence)
            ends.append(len(tokens))
        return cls(np.array(tokens, np.int32), np.array(ends, np.int64))

    def lengths(self) -> Int64[np.ndarray, "n"]:
        """Count the tokens of each sentence."""
        return np.diff(self.ends, prepend=0)

    def lists(self) -> list[list[int]]:
        """List the tokens of each sentence."""
        return [part.tolist() for part in np.split(self.tokens, self.ends[:-1])]

    def chosen(self, indices: np.ndarray) -> "Sentences":
        """Select sentences."""
        lengths = self.lengths()[indices]
        ends = np.cumsum(lengths)
        shift = self.ends[indices] - ends
        return Sentences(self.tokens[np.arange(lengths.sum()) + np.repeat(shift, lengths)], ends)

    def padded(self, indices: np.ndarray, rows: int, length: int) -> Int32[np.ndarray, "rows length"]:
        """Select sentences, truncated or padded with 0 to `length` tokens, and add empty rows up to `rows`."""
        out = np.zeros((rows, length), np.int32)
        for row, index in enumerate(indices):
            start = self.ends[index - 1] if index else 0
            sentence = self.tokens[start : min(self.ends[index], start + length)]
            out[row, : len(sentence)] = sentence
        return out


class Pairs(NamedTuple):
    """Sentences and their translations: an `Examples` whose training batches are counted in tokens."""

    source: Sentences
    target: Sentences
    lengths: tuple[int, ...]  # rising; sentences of a batch are padded to one of them
    references: tuple[str, ...] = ()  # translations as text; empty for training

    @property
    def size(self) -> int:
        return len(self.source.ends)

    def longer_side(self) -> Int64[np.ndarray, "n"]:
        """Count the tokens of the longer sentence of each pair."""
        return np.maximum(self.source.lengths(), self.target.lengths())

    def too_long(self) -> Bool[np.ndarray, "n"]:
        """Mark the pairs that do not fit into the longest length."""
        return self.longer_side() > self.lengths[-1]

    def chosen(self, indices: np.ndarray) -> "Pairs":
        """Select pairs, without references."""
        return Pairs(self.source.chosen(indices), self.target.chosen(indices), self.lengths)

    def buckets(self) -> Int64[np.ndarray, "n"]:
        """Return for each pair the index of the shortest length that holds both sentences, else of the longest."""
        return np.minimum(np.searchsorted(self.lengths, self.longer_side()), len(self.lengths) - 1)

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        """Count the rows of a training batch of each length: at most `batch_size` tokens on either side."""
        return tuple(max(ROWS, batch_size // length // ROWS * ROWS) for length in self.lengths)

    def examples_per_step(self, batch_size: int) -> float:
        """Count the pairs of a training step, on average."""
        least = ROWS * self.lengths[-1]
        if batch_size < least:
            raise UserError(f"data.batch_size={batch_size} tokens is too small: give {ROWS} of the longest, {least}")
        return self.size / self._steps(batch_size)

    def _steps(self, batch_size: int) -> int:
        """Count the batches of any epoch; the last of each length may be partly empty."""
        members = np.bincount(self.buckets(), minlength=len(self.lengths))
        return int(np.ceil(members / self.row_counts(batch_size)).sum())

    def _plan(self, batch_size: int, seed: int, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Shuffle an epoch into batches of one length each."""
        order = epoch_order(seed, epoch, self.size)
        buckets, plan = self.buckets()[order], []
        for bucket, rows in enumerate(self.row_counts(batch_size)):
            members = order[buckets == bucket]
            plan += [(bucket, members[start : start + rows]) for start in range(0, len(members), rows)]
        return [plan[index] for index in np.random.default_rng([seed, epoch, 1]).permutation(len(plan))]

    def gather(self, indices: np.ndarray, rows: int, length: int) -> TextBatch:
        """Return a batch of the pairs at these indices."""
        return TextBatch(self.source.padded(indices, rows, length), self.target.padded(indices, rows, length))

    def blank_batch(self, rows: int) -> TextBatch:
        return self.gather(np.arange(0), rows, self.lengths[0])

    def train_batches(
        self, batch_size: int, seed: int, first: int, shard: Shard = WHOLE
    ) -> Generator[TextBatch, None, None]:
        rows = self.row_counts(batch_size)
        epoch, skipped = divmod(first, self._steps(batch_size))
        for number in count(epoch):
            for bucket, indices in self._plan(batch_size, seed, number)[skipped:]:
                own = shard.of(rows[bucket])
                yield self.gather(indices[own], own.stop - own.start, self.lengths[bucket])
            skipped = 0

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[TextBatch]:
        """Yield pairs of the most frequent length in random order, in batches of one shape, without end."""
        buckets = self.buckets()
        most = int(np.bincount(buckets).argmax())
        members = np.flatnonzero(buckets == most)
        for epoch in count():
            order = members[epoch_order(seed, epoch, len(members))]
            for start in range(0, len(members), batch_size):
                yield self.gather(order[start : start + batch_size], batch_size, self.lengths[most])

    def eval_indices(self, batch_size: int) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yield indices, rows and length of batches that hold every pair once, short ones first."""
        buckets = self.buckets()
        for bucket, length in enumerate(self.lengths):
            members = np.flatnonzero(buckets == bucket)
            rows = max(1, min(batch_size * self.lengths[0] // length, len(members)))
            for start in range(0, len(members), rows):
                yield members[start : start + rows], rows, length

    def eval_batches(self, batch_size: int) -> Iterator[TextBatch]:
        return (self.gather(*batch) for batch in self.eval_indices(batch_size))
