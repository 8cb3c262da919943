"""Exact selection of the lowest share of each column, with a traced proportion and without sorting.

Magnitudes of floats order like their bit patterns. The k-th smallest is therefore found by fixing its bits from the
highest down, one count per bit, and a second search over the row index settles ties. Both take the proportion as a
traced value, so a schedule or a sweep of rates compiles once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped, UInt, UInt32

from td.errors import UserError

BLOCK = 64
"""Columns that a CPU searches together: few enough to stay in its cache, enough for its vector registers."""


DECIMALS = 10_000
"""A share within half a float32 ulp of a multiple of 1 / DECIMALS is taken for that decimal."""


def share_to_count(proportion: float | Float[Array, ""], size: int) -> UInt32[Array, ""]:
    """The whole number of entries that a share stands for: `floor(proportion * size)`, exactly.

    In float32 the plain product is off by one wherever the share has no exact binary form (0.65 * 5760 gives 3743,
    not 3744). Here a share that float32 cannot tell from a decimal of four digits is that decimal. Of any other the
    largest whole number is taken whose own share of `size`, rounded to float32, does not exceed `proportion` (shares
    below 2**-8 are resolved to 2**-32). All products are formed in integers, so every device gives the same count.

    Args:
      proportion: a share in [0, 1], float32; values outside are clipped.
      size: how many entries there are, below 2**32.

    Returns:
      The count, uint32.

    Example:
      >>> int(share_to_count(0.65, 5760)), int(share_to_count(0.651, 1_849_344))
      (3744, 1203922)
    """
    proportion = jnp.clip(jnp.asarray(proportion, jnp.float32), 0.0, 1.0)
    below_one = jnp.minimum(proportion, jnp.float32(1 - 2**-24))
    fixed = (below_one * jnp.float32(2**32)).astype(jnp.uint32)
    # Half a float32 ulp of the share, and never less than the truncation above: no whole count is missed by rounding.
    leading_bit = jnp.uint32(1) << (jnp.uint32(31) - lax.clz(fixed | jnp.uint32(1)))
    half_ulp = jnp.maximum(leading_bit >> 24, jnp.uint32(1))

    whole, rest = _product(fixed, DECIMALS)
    above = rest >= jnp.uint32(2**31)
    decimal = whole + above.astype(jnp.uint32)
    is_decimal = jnp.where(above, ~rest, rest) <= half_ulp * jnp.uint32(DECIMALS)
    quotient, remainder = divmod(size, DECIMALS)
    of_decimal = decimal * jnp.uint32(quotient) + decimal * jnp.uint32(remainder) // jnp.uint32(DECIMALS)

    of_others, _ = _product(fixed + half_ulp, size)
    count = jnp.where(is_decimal, of_decimal, of_others)
    return jnp.where(proportion >= 1.0, jnp.uint32(size), count)


def _product(a: UInt32[Array, ""], b: int) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """The upper and the lower 32 bits, from 16-bit halves: JAX has no 64-bit integers by default."""
    low, high = jnp.uint32(0xFFFF), jnp.uint32(16)
    a0, a1 = a & low, a >> high
    b0, b1 = jnp.uint32(b & 0xFFFF), jnp.uint32(b >> 16)
    first = a1 * b0 + ((a0 * b0) >> high)
    second = a0 * b1 + (first & low)
    return a1 * b1 + (first >> high) + (second >> high), a * jnp.uint32(b)


def _ordered_bits(scores: Float[Array, "rows columns"]) -> UInt[Array, "rows columns"]:
    """Unsigned integers that order like the scores' magnitudes."""
    bits = {8: jnp.uint64, 4: jnp.uint32, 2: jnp.uint16}.get(scores.dtype.itemsize)
    if bits is None:
        raise UserError(f"scores of dtype {scores.dtype} cannot be ranked: use float32, bfloat16 or float16")
    return lax.bitcast_convert_type(jnp.abs(scores), bits)


def lowest(scores: Float[Array, "rows columns"], proportion: float | Float[Array, ""]) -> Bool[Array, "rows columns"]:
    """Mark the lowest `share_to_count(proportion, rows)` entries of every column.

    Equal to a stable sort of each column: of equal scores, those with the lower row index are taken first, so the
    count is met exactly and never exceeded.

    Args:
      scores: importances, float32, bfloat16 or float16; the sign does not count.
      proportion: the share of each column to mark, in [0, 1]; may be traced.

    Returns:
      True = among the lowest.

    Raises:
      UserError: the dtype cannot be ranked.

    Example:
      >>> import jax.numpy as jnp
      >>> lowest(jnp.array([[3.0, 1.0], [1.0, 1.0], [2.0, 1.0], [4.0, 1.0]]), 0.5).astype(int).T.tolist()
      [[0, 1, 1, 0], [1, 1, 0, 0]]
    """
    return lowest_of_each({"": scores}, proportion)[""]


def lowest_of_each(
    scores: Mapping[str, Float[Array, "_ _"]], proportion: float | Float[Array, ""]
) -> dict[str, Bool[Array, "_ _"]]:
    """`lowest` of several matrices: those of as many rows are searched side by side, in fewer and larger operations.

    Args:
      scores: `{name: [rows, columns]}`, as for `lowest`.
      proportion: the share of each column to mark, in [0, 1]; may be traced.

    Returns:
      `{name: True = among the lowest}`.

    Raises:
      UserError: a dtype cannot be ranked.

    Example:
      >>> import jax.numpy as jnp
      >>> marked = lowest_of_each({"a": jnp.array([[3.0], [1.0]]), "b": jnp.array([[5.0, 2.0], [6.0, 1.0]])}, 0.5)
      >>> {name: mask.astype(int).tolist() for name, mask in marked.items()}
      {'a': [[0], [1]], 'b': [[1, 0], [0, 1]]}
    """
    return _lowest_of_each(lax.stop_gradient(dict(scores)), jnp.asarray(proportion, jnp.float32))


@jax.jit
def _lowest_of_each(scores: dict[str, Array], proportion: Array) -> dict[str, Array]:
    """Compiled on its own, so that a call outside of `jit` compiles once for its shapes."""
    alike: dict[tuple[int, Any], list[str]] = {}
    for name, matrix in scores.items():
        alike.setdefault((matrix.shape[0], matrix.dtype), []).append(name)
    marked = {}
    for (rows, _), names in alike.items():
        count = share_to_count(proportion, rows)
        matrices = [scores[name] for name in names]
        cuts = lax.platform_dependent(matrices, count, cpu=_cut_one_by_one, default=_cut_side_by_side)
        for name, matrix, cut in zip(names, matrices, cuts, strict=True):
            keys, index = _ordered_bits(matrix), lax.broadcasted_iota(jnp.uint32, matrix.shape, 0)
            marked[name] = (keys < cut.threshold) | ((keys == cut.threshold) & (index < cut.row))
    return {name: marked[name] for name in scores}


class Cut(NamedTuple):
    """What separates the lowest of each column: keys below the threshold, and keys at it in the rows before `row`."""

    threshold: UInt[Array, "columns"]
    row: UInt32[Array, "columns"]


def _cut_one_by_one(matrices: list[Array], count: UInt32[Array, ""]) -> list[Cut]:
    """For a CPU, which gains nothing from larger operations and would lose the time of a copy."""
    return [_cut_in_blocks(matrix, count) for matrix in matrices]


def _cut_side_by_side(matrices: list[Array], count: UInt32[Array, ""]) -> list[Cut]:
    """For an accelerator, which would otherwise wait for the launch of many small operations."""
    cut = _cut(_ordered_bits(jnp.concatenate(matrices, axis=1)), count)
    ends = np.cumsum([matrix.shape[1] for matrix in matrices])[:-1]
    return [Cut(*pair) for pair in zip(jnp.split(cut.threshold, ends), jnp.split(cut.row, ends), strict=True)]


def _cut(keys: UInt[Array, "rows columns"], count: UInt32[Array, ""]) -> Cut:
    """Fix the threshold's bits from the highest down: the largest with at most `count` keys below it."""

    def fix_bit(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        return _fix_bit(found, bits - 1 - i, keys, count)

    bits = 8 * keys.dtype.itemsize - 1
    threshold, below = lax.fori_loop(0, bits, fix_bit, _nothing_found(keys))
    return _settle_ties(keys, threshold, count - below)


def _cut_in_blocks(scores: Float[Array, "rows columns"], count: UInt32[Array, ""]) -> Cut:
    """`_cut` as a CPU likes it: columns that stay in its cache, and no more rounds than they need.

    Bits are taken of each block: those of the whole would go through memory once more.
    """
    columns = scores.shape[1]
    width = min(columns, BLOCK)
    bits = 8 * scores.dtype.itemsize - 1

    def unsettled(state: tuple[Array, tuple[Array, Array]]) -> Array:
        bit, (_, below) = state
        return (bit >= 0) & jnp.any(below != count)

    def cut(few: Array) -> Cut:
        block = _ordered_bits(few)

        def fix_bit(state: tuple[Array, tuple[Array, Array]]) -> tuple[Array, tuple[Array, Array]]:
            return state[0] - 1, _fix_bit(state[1], state[0], block, count)

        _, (threshold, below) = lax.while_loop(unsettled, fix_bit, (jnp.int32(bits - 1), _nothing_found(block)))
        return _settle_ties(block, threshold, count - below)

    def add_block(i: Array, found: Cut) -> Cut:
        first = jnp.minimum(i * width, columns - width)
        added = cut(lax.dynamic_slice_in_dim(scores, first, width, axis=1))
        return Cut(*(lax.dynamic_update_slice_in_dim(a, b, first, axis=0) for a, b in zip(found, added, strict=True)))

    if width == columns:
        return cut(scores)
    nothing = Cut(*_nothing_found(_ordered_bits(scores[:1])))
    return lax.fori_loop(0, -(-columns // width), add_block, nothing)


def _nothing_found(keys: UInt[Array, "rows columns"]) -> tuple[Array, Array]:
    return jnp.zeros(keys.shape[1:], keys.dtype), jnp.zeros(keys.shape[1:], jnp.uint32)


def _fix_bit(
    found: tuple[Array, Array], bit: Array, keys: UInt[Array, "rows columns"], count: UInt32[Array, ""]
) -> tuple[Array, Array]:
    """One round: thresholds, and the number of keys below each, with one more bit settled."""
    threshold, below = found
    trial = threshold | (jnp.ones((), keys.dtype) << bit.astype(keys.dtype))
    trial_below = count_where(lambda part: part < trial, keys)
    fits = trial_below <= count
    return jnp.where(fits, trial, threshold), jnp.where(fits, trial_below, below)


def _settle_ties(
    keys: UInt[Array, "rows columns"], threshold: UInt[Array, "columns"], wanted: UInt32[Array, "columns"]
) -> Cut:
    """Of the keys at the threshold as many as are still wanted, by row index."""
    rows = keys.shape[0]
    bits = rows.bit_length()

    def search() -> Array:
        at, index = keys == threshold, lax.broadcasted_iota(jnp.uint32, keys.shape, 0)

        def fix_bit(i: Array, row: Array) -> Array:
            trial = row | (jnp.uint32(1) << (bits - 1 - i).astype(jnp.uint32))
            taken = jnp.sum(at & (index < trial), axis=0, dtype=jnp.uint32)
            return jnp.where((taken <= wanted) & (trial <= rows), trial, row)

        return lax.fori_loop(0, bits, fix_bit, jnp.zeros_like(wanted))

    return Cut(threshold, lax.cond(jnp.any(wanted > 0), search, lambda: jnp.zeros_like(wanted)))


def count_where(test: Callable[[Array], Array], matrix: Shaped[Array, "rows columns"]) -> UInt32[Array, "columns"]:
    """Count the entries of each column that pass a test.

    XLA's CPU code for a sum over more than 32 rows is five times as fast with up to sixteen of its additions written
    out in front, and slow where fewer rows remain. The test comes after the cut: before it, its results would go
    through memory.

    Args:
      test: elementwise, from several rows of the matrix to bool.
      matrix: what is counted.

    Returns:
      uint32.

    Example:
      >>> count_where(lambda entries: entries > 1, jnp.array([[3, 1], [2, 2]])).tolist()
      [2, 1]
    """
    rows, columns = matrix.shape
    parts = next((parts for parts in (16, 8, 4, 2) if rows % parts == 0 and rows // parts > 32), 1)
    added = sum(test(part).astype(jnp.uint32) for part in matrix.reshape(parts, rows // parts, columns))
    return jnp.sum(added, axis=0, dtype=jnp.uint32)
