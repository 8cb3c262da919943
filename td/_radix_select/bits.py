"""Bit patterns that order like magnitudes, and counts of columns: most of the cost of selection and sparsity."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped, UInt, UInt32

from td.errors import UserError


def ordered_bits(scores: Float[Array, "rows columns"]) -> UInt[Array, "rows columns"]:
    """Unsigned integers that order like the magnitudes of the scores."""
    bits = {8: jnp.uint64, 4: jnp.uint32, 2: jnp.uint16}.get(scores.dtype.itemsize)
    if bits is None:
        raise UserError(f"scores of dtype {scores.dtype} cannot be ranked: use float32, bfloat16 or float16")
    return lax.bitcast_convert_type(jnp.abs(scores), bits)


def count_where(test: Callable[[Array], Array], matrix: Shaped[Array, "rows columns"]) -> UInt32[Array, "columns"]:
    """Count the entries of each column that pass a test.

    XLA's CPU code for a sum over more than 32 rows is five times as fast with up to sixteen of its additions written
    out in front, and slow where fewer rows remain. The test comes after the cut: before it, its results would go
    through memory.
    """
    rows, columns = matrix.shape
    parts = next((parts for parts in (16, 8, 4, 2) if rows % parts == 0 and rows // parts > 32), 1)
    added = sum(test(part).astype(jnp.uint32) for part in matrix.reshape(parts, rows // parts, columns))
    return jnp.sum(added, axis=0, dtype=jnp.uint32)
