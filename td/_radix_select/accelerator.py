"""Radix select for accelerators: few and large operations, and none that the host waits for.

Matrices are padded to one height and selected from side by side. A threshold is fixed four bits at a time: one pass
counts the keys below all fifteen values that the next digit may add. Ties are settled in the same way over row indices.
Where all pairs of a column are few, as with units, every key is compared with every other at once.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, UInt, UInt32

from td._radix_select.bits import ordered_bits

DIGIT = 4
"""Bits that one pass settles."""

HALF, ABOVE = 16, np.uint16(2**16 - 1)
"""Bits of a key that are fixed at a time, and a value above every threshold of that many bits."""

PAIRS = 2**28
"""Number of comparisons that are cheaper than the launches of a radix select."""

LAUNCHES = 5 * 2**19
"""Padded entries whose comparisons take a GPU about as long as the launches of one more group: an estimate."""


def mark(scores: Sequence[Array], counts: UInt32[Array, "matrices"]) -> list[Bool[Array, "_ _"]]:
    """Mark the lowest `counts[i]` entries of every column of matrix i."""
    marked: dict[int, Array] = {}
    for group in _groups([matrix.shape for matrix in scores]):
        chosen, heights = [scores[i] for i in group], [scores[i].shape[0] for i in group]
        widths = [matrix.shape[1] for matrix in chosen]
        wanted = counts[np.repeat(group, widths)]
        keys = _padded([ordered_bits(matrix) for matrix in chosen])
        by_pairs = max(heights) ** 2 * sum(widths) <= PAIRS
        found = _by_pairs(keys, wanted) if by_pairs else _by_digits(keys, wanted)
        ends = np.cumsum(widths)
        for i, end, height, width in zip(group, ends, heights, widths, strict=True):
            marked[i] = found(slice(end - width, end), height, scores[i])
    return [marked[i] for i in range(len(scores))]


Marks = Callable[[slice, int, Array], Array]
"""`(columns, height, scores) -> marks` of the matrix that was padded to those columns."""


def _groups(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Group the matrices that are padded to one height."""
    alike: dict[int, list[int]] = {}
    for i, (rows, _) in enumerate(shapes):
        alike.setdefault(rows, []).append(i)
    groups: list[list[int]] = []
    tallest = 0
    for rows in sorted(alike, reverse=True):
        if groups and (tallest - rows) * sum(shapes[i][1] for i in alike[rows]) <= LAUNCHES:
            groups[-1] += alike[rows]
        else:
            groups.append(alike[rows])
            tallest = rows
    return groups


def _padded(keys: Sequence[UInt[Array, "_ _"]]) -> UInt[Array, "rows columns"]:
    """One matrix, padded with keys that are above every threshold."""
    rows = max(matrix.shape[0] for matrix in keys)
    highest = jnp.array(jnp.iinfo(keys[0].dtype).max, keys[0].dtype)
    return jnp.concatenate([lax.pad(m, highest, ((0, rows - m.shape[0], 0), (0, 0, 0))) for m in keys], axis=1)


def _by_pairs(keys: UInt[Array, "rows columns"], wanted: UInt32[Array, "columns"]) -> Marks:
    row = jnp.arange(keys.shape[0])[:, None, None]
    other, own, other_row = keys[None], keys[:, None], jnp.arange(keys.shape[0])[None, :, None]
    rank = jnp.sum((other < own) | ((other == own) & (other_row < row)), axis=1, dtype=jnp.uint32)
    marked = rank < wanted[None]
    return lambda columns, height, scores: marked[:height, columns]


def _by_digits(keys: UInt[Array, "rows columns"], wanted: UInt32[Array, "columns"]) -> Marks:
    rows, bits = keys.shape[0], 8 * keys.dtype.itemsize - 1
    threshold, below = jnp.zeros(keys.shape[1:], keys.dtype), jnp.zeros(keys.shape[1:], jnp.uint32)
    # Sixteen bits at a time, so that the passes read half of each key.
    for shift in range((bits - 1) // HALF * HALF, -1, -HALF):
        half = (keys >> shift).astype(jnp.uint16)
        if shift + HALF < bits:
            half = jnp.where(keys >> (shift + HALF) == threshold[None], half, ABOVE)
        digits, less = _largest(lax.optimization_barrier(half), min(HALF, bits - shift), wanted - below)
        threshold = (threshold << (HALF % (bits + 1))) | digits.astype(keys.dtype)
        below += less
    kind = jnp.uint16 if rows < ABOVE else jnp.uint32
    highest = jnp.array(jnp.iinfo(kind).max, kind)
    ties = jnp.where(keys == threshold[None], lax.broadcasted_iota(kind, keys.shape, 0), highest)
    first_kept, _ = _largest(lax.optimization_barrier(ties), rows.bit_length(), wanted - below)

    def marks(columns: slice, height: int, scores: Array) -> Array:
        own, index = ordered_bits(scores), lax.broadcasted_iota(first_kept.dtype, scores.shape, 0)
        cut, row = threshold[None, columns], first_kept[None, columns]
        return (own < cut) | ((own == cut) & (index < row))

    return marks


def _largest(values: UInt[Array, "rows columns"], bits: int, most: UInt32[Array, "columns"]) -> tuple[Array, Array]:
    """Find for each column the largest `bits`-bit number with at most `most` values below it, and count these."""
    found, below = jnp.zeros(values.shape[1:], values.dtype), jnp.zeros(values.shape[1:], jnp.uint32)
    left = bits
    while left:
        rest = left % DIGIT
        width = rest + DIGIT if rest == 1 < left else rest or DIGIT  # no pass for a single bit
        left -= width
        trials = found[None] | (np.arange(1, 2**width, dtype=values.dtype)[:, None] << left)
        counts = jnp.sum(values[None] < trials[:, None], axis=1, dtype=jnp.uint32)
        fits = counts <= most[None]
        found |= jnp.sum(fits, axis=0, dtype=values.dtype) << jnp.array(left, values.dtype)
        below = jnp.maximum(below, jnp.max(jnp.where(fits, counts, 0), axis=0))
    return found, below
