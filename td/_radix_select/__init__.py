"""Exact selection of the lowest fraction of each column, with a traced proportion and without sorting.

Magnitudes of floats order like their bit patterns. The k-th smallest is therefore found by fixing its bits from the
highest down, with a count of the keys below, and a second pass over the row index settles ties. Both take the
proportion as a traced value, so a schedule or a sweep of rates compiles once. CPUs and accelerators want different
programs (`td/_radix_select/cpu.py`, `td/_radix_select/accelerator.py`), which mark the same entries.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from td._radix_select import accelerator, cpu

DECIMALS = 10_000
"""A proportion within half a float32 ulp of a multiple of 1 / DECIMALS is taken for that decimal."""


def fraction_to_count(proportion: float | Float[Array, ""], size: int | np.ndarray) -> UInt32[Array, "..."]:
    """Convert a proportion to a number of entries: `floor(proportion * size)`, exactly.

    In float32 the plain product is off by one wherever the proportion has no exact binary form (0.65 * 5760 gives 3743,
    not 3744). Here a share that float32 cannot tell from a decimal of four digits is that decimal. Of any other the
    largest whole number is taken whose own share of `size`, rounded to float32, does not exceed `proportion` (shares
    below 2**-8 are resolved to 2**-32). All products are formed in integers, so every device gives the same count.
    """
    proportion = jnp.clip(jnp.asarray(proportion, jnp.float32), 0.0, 1.0)
    below_one = jnp.minimum(proportion, jnp.float32(1 - 2**-24))
    fixed = (below_one * jnp.float32(2**32)).astype(jnp.uint32)
    # Half a float32 ulp of the proportion, never less than the truncation above: rounding misses no whole count.
    leading_bit = jnp.uint32(1) << (jnp.uint32(31) - lax.clz(fixed | jnp.uint32(1)))
    half_ulp = jnp.maximum(leading_bit >> 24, jnp.uint32(1))

    whole, rest = _product(fixed, DECIMALS)
    above = rest >= jnp.uint32(2**31)
    decimal = whole + above.astype(jnp.uint32)
    is_decimal = jnp.where(above, ~rest, rest) <= half_ulp * jnp.uint32(DECIMALS)
    quotient, remainder = (jnp.asarray(part, jnp.uint32) for part in np.divmod(size, DECIMALS))
    of_decimal = decimal * quotient + decimal * remainder // jnp.uint32(DECIMALS)

    of_others, _ = _product(fixed + half_ulp, size)
    count = jnp.where(is_decimal, of_decimal, of_others)
    return jnp.where(proportion >= 1.0, jnp.asarray(size, jnp.uint32), count)


def _product(a: UInt32[Array, ""], b: int | np.ndarray) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """The upper and the lower 32 bits, from 16-bit halves: JAX has no 64-bit integers by default."""
    low, high = jnp.uint32(0xFFFF), jnp.uint32(16)
    a0, a1 = a & low, a >> high
    b0, b1 = (jnp.asarray(half, jnp.uint32) for half in (b & 0xFFFF, b >> 16))
    first = a1 * b0 + ((a0 * b0) >> high)
    second = a0 * b1 + (first & low)
    return a1 * b1 + (first >> high) + (second >> high), a * jnp.asarray(b, jnp.uint32)


def bottom_k_mask(
    scores: Float[Array, "rows columns"], proportion: float | Float[Array, ""]
) -> Bool[Array, "rows columns"]:
    """Mark the lowest `fraction_to_count(proportion, rows)` entries of every column.

    Equal to a stable sort of each column: of equal scores, those with the lower row index are taken first, so the
    count is met exactly and never exceeded.
    """
    return bottom_k_masks({"": scores}, proportion)[""]


def bottom_k_masks(
    scores: Mapping[str, Float[Array, "_ _"]], proportion: float | Float[Array, ""], min_kept: int = 0
) -> dict[str, Bool[Array, "_ _"]]:
    """`bottom_k_mask` of several matrices, which accelerators select from side by side, in few and large operations."""
    return _bottom_k_masks(lax.stop_gradient(dict(scores)), jnp.asarray(proportion, jnp.float32), min_kept)


@partial(jax.jit, static_argnums=2)
def _bottom_k_masks(scores: dict[str, Array], proportion: Array, min_kept: int) -> dict[str, Array]:
    """Compiled on its own, so that a call outside of `jit` compiles once for its shapes."""
    alike: dict[Any, list[str]] = {}
    for name, matrix in scores.items():
        alike.setdefault(matrix.dtype, []).append(name)
    marked: dict[str, Array] = {}
    for names in alike.values():
        matrices = [scores[name] for name in names]
        heights = np.array([matrix.shape[0] for matrix in matrices])
        counts = fraction_to_count(proportion, np.maximum(heights - min_kept, 0))
        found = lax.platform_dependent(matrices, counts, cpu=_mark_one_by_one, default=accelerator.mark)
        marked |= dict(zip(names, found, strict=True))
    return {name: marked[name] for name in scores}


def _mark_one_by_one(matrices: list[Array], counts: UInt32[Array, "matrices"]) -> list[Array]:
    """A CPU gains nothing from larger operations and would lose the time of a copy."""
    return [cpu.mark(matrix, count) for matrix, count in zip(matrices, counts, strict=True)]
