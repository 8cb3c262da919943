"""Radix select for CPUs: blocks of columns that stay in the cache, and no more rounds than they need."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, UInt, UInt32

from td._radix_select.bits import count_where, ordered_bits

BLOCK = 64
"""Columns that are handled together: few enough to stay in the cache, enough for the vector registers."""


class Cut(NamedTuple):
    """Selection of each column: keys below the threshold, and keys equal to it in the rows before `row`."""

    threshold: UInt[Array, "columns"]
    row: UInt32[Array, "columns"]


def mark(scores: Float[Array, "rows columns"], count: UInt32[Array, ""]) -> Bool[Array, "rows columns"]:
    """Mark the `count` lowest of every column."""
    cut, keys = _cut_in_blocks(scores, count), ordered_bits(scores)
    threshold, row = cut.threshold[None], cut.row[None]
    return (keys < threshold) | ((keys == threshold) & (lax.broadcasted_iota(jnp.uint32, keys.shape, 0) < row))


def _cut_in_blocks(scores: Float[Array, "rows columns"], count: UInt32[Array, ""]) -> Cut:
    """The cut of every column, block by block, in no more rounds than each block needs.

    Bits are taken of each block: those of the whole would go through memory once more.
    """
    columns = scores.shape[1]
    width = min(columns, BLOCK)
    bits = 8 * scores.dtype.itemsize - 1

    def unsettled(state: tuple[Array, Array, Array]) -> Array:
        bit, _, below = state
        return (bit >= 0) & jnp.any(below != count)

    def cut(few: Array) -> Cut:
        keys = ordered_bits(few)

        def fix_bit(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            bit, threshold, below = state
            trial = threshold | (jnp.ones((), keys.dtype) << bit.astype(keys.dtype))
            trial_below = count_where(lambda part: part < trial[None], keys)
            fits = trial_below <= count
            return bit - 1, jnp.where(fits, trial, threshold), jnp.where(fits, trial_below, below)

        _, threshold, below = lax.while_loop(unsettled, fix_bit, (jnp.int32(bits - 1), *_nothing_found(keys)))
        return _settle_ties(keys, threshold, count - below)

    def add_block(i: Array, found: Cut) -> Cut:
        first = jnp.minimum(i * width, columns - width)
        added = cut(lax.dynamic_slice_in_dim(scores, first, width, axis=1))
        return Cut(*(lax.dynamic_update_slice_in_dim(a, b, first, axis=0) for a, b in zip(found, added, strict=True)))

    if width == columns:
        return cut(scores)
    nothing = Cut(*_nothing_found(ordered_bits(scores)))
    return lax.fori_loop(0, -(-columns // width), add_block, nothing)


def _nothing_found(keys: UInt[Array, "rows columns"]) -> tuple[Array, Array]:
    # Made of the keys, so that a loop begins with what is spread over devices as its result is; XLA sees that it is 0.
    zero = (keys * 0).sum(0, dtype=keys.dtype)
    return zero, zero.astype(jnp.uint32)


def _settle_ties(
    keys: UInt[Array, "rows columns"], threshold: UInt[Array, "columns"], wanted: UInt32[Array, "columns"]
) -> Cut:
    """Select as many keys at the threshold as are still wanted, by row index."""
    rows = keys.shape[0]
    bits = rows.bit_length()

    def by_row() -> Array:
        at, index = keys == threshold[None], lax.broadcasted_iota(jnp.uint32, keys.shape, 0)

        def fix_bit(i: Array, row: Array) -> Array:
            trial = row | (jnp.uint32(1) << (bits - 1 - i).astype(jnp.uint32))
            taken = jnp.sum(at & (index < trial[None]), axis=0, dtype=jnp.uint32)
            return jnp.where((taken <= wanted) & (trial <= rows), trial, row)

        return lax.fori_loop(0, bits, fix_bit, jnp.zeros_like(wanted))

    return Cut(threshold, lax.cond(jnp.any(wanted > 0), by_row, lambda: jnp.zeros_like(wanted)))
