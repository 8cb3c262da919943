"""Exact selection of the lowest share of each column, with a traced proportion and without sorting.

Non-negative floats order like their bit patterns. The k-th smallest is therefore found by fixing its bits from the
highest down, one count per bit, and a second search over the row index settles ties. Both take the proportion as a
traced value, so a schedule or a sweep of rates compiles once.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt

from td.base import Step
from td.errors import UserError


def share_to_count(proportion: float | Float[Array, ""], size: int) -> Int[Array, ""]:
    """The whole number of entries that a share stands for: `floor(proportion * size)`, exactly.

    In float32 the plain product is off by one wherever the share has no exact binary form (0.65 * 5760 gives 3743,
    not 3744). Here the largest whole number is taken whose own share of `size`, rounded to float32, does not exceed
    `proportion` (shares below 2**-8 are resolved to 2**-32). The product is formed in integers, `proportion` as a
    32-bit fixed-point number, so every device gives the same count.

    Args:
      proportion: a share in [0, 1], float32; values outside are clipped.
      size: how many entries there are, below 2**32.

    Returns:
      The count, int32.

    Example:
      >>> int(share_to_count(0.65, 5760))
      3744
    """
    proportion = jnp.clip(jnp.asarray(proportion, jnp.float32), 0.0, 1.0)
    below_one = jnp.minimum(proportion, jnp.float32(1 - 2**-24))
    fixed = (below_one * jnp.float32(2**32)).astype(jnp.uint32)
    # Half a float32 ulp of the share, and never less than the truncation above: no whole count is missed by rounding.
    leading_bit = jnp.uint32(1) << (jnp.uint32(31) - lax.clz(fixed | jnp.uint32(1)))
    fixed = fixed + jnp.maximum(leading_bit >> 24, jnp.uint32(1))
    count = _high_word(fixed, size)
    return jnp.where(proportion >= 1.0, size, count).astype(jnp.int32)


def _high_word(a: UInt[Array, ""], b: int) -> UInt[Array, ""]:
    """The upper 32 bits of the 64-bit product, from 16-bit halves: JAX has no 64-bit integers by default."""
    low, high = jnp.uint32(0xFFFF), jnp.uint32(16)
    a0, a1 = a & low, a >> high
    b0, b1 = jnp.uint32(b & 0xFFFF), jnp.uint32(b >> 16)
    first = a1 * b0 + ((a0 * b0) >> high)
    second = a0 * b1 + (first & low)
    return a1 * b1 + (first >> high) + (second >> high)


def _ordered_bits(scores: Float[Array, "rows columns"]) -> UInt[Array, "rows columns"]:
    """Unsigned integers that order like the non-negative scores; -0 counts as 0."""
    bits = {8: jnp.uint64, 4: jnp.uint32, 2: jnp.uint16}.get(scores.dtype.itemsize)
    if bits is None:
        raise UserError(f"scores of dtype {scores.dtype} cannot be ranked: use float32, bfloat16 or float16")
    return lax.bitcast_convert_type(jnp.abs(scores), bits)


def lowest(scores: Float[Array, "rows columns"], proportion: float | Float[Array, ""]) -> Bool[Array, "rows columns"]:
    """Mark the lowest `share_to_count(proportion, rows)` entries of every column.

    Equal to a stable sort of each column: of equal scores, those with the lower row index are taken first, so the
    count is met exactly and never exceeded.

    Args:
      scores: non-negative importances, float32, bfloat16 or float16.
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
    return _lowest(_ordered_bits(lax.stop_gradient(scores)), share_to_count(proportion, scores.shape[0]))


@jax.jit
def _lowest(keys: UInt[Array, "rows columns"], count: Int[Array, ""]) -> Bool[Array, "rows columns"]:
    """`lowest` on bits. Compiled on its own, so that a call outside of `jit` compiles once for a shape."""
    bits = 8 * keys.dtype.itemsize - 1

    def fix_bit(i: Array, threshold: Array) -> Array:
        trial = threshold | (jnp.ones((), keys.dtype) << (bits - 1 - i).astype(keys.dtype))
        below = jnp.sum(keys < trial, axis=0, dtype=jnp.int32)
        return jnp.where(below <= count, trial, threshold)

    # The largest key with at most `count` keys below it: the value of the next entry that is *not* marked.
    threshold = lax.fori_loop(0, bits, fix_bit, jnp.zeros(keys.shape[1:], keys.dtype))
    return _settle_ties(keys, threshold, count)


def _settle_ties(
    keys: UInt[Array, "rows columns"], threshold: UInt[Array, "columns"], count: Int[Array, ""]
) -> Bool[Array, "rows columns"]:
    """All keys below the threshold and, by row index, as many at the threshold as the count still wants."""
    rows = keys.shape[0]
    below, at = keys < threshold, keys == threshold
    wanted = count - jnp.sum(below, axis=0, dtype=jnp.int32)
    index = lax.broadcasted_iota(jnp.int32, keys.shape, 0)
    bits = rows.bit_length()

    def fix_bit(i: Array, limit: Array) -> Array:
        trial = limit | (1 << (bits - 1 - i)).astype(jnp.int32)
        taken = jnp.sum(at & (index < trial), axis=0, dtype=jnp.int32)
        return jnp.where((taken <= wanted) & (trial <= rows), trial, limit)

    def search() -> Array:
        return below | (at & (index < lax.fori_loop(0, bits, fix_bit, jnp.zeros(keys.shape[1:], jnp.int32))))

    return lax.cond(jnp.any(wanted > 0), search, lambda: below)


def value_at(value: object, step: Step) -> Array:
    """A number as it is, or a schedule's value at the step.

    Args:
      value: a number, an array or a function of the step.
      step: the step.

    Returns:
      A float32 scalar.

    Example:
      >>> float(value_at(lambda step: step / 4, 1)), float(value_at(0.5, 1))
      (0.25, 0.5)
    """
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)
