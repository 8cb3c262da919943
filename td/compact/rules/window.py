"""Gathers, scatters, dynamic slices and updates: what starts anywhere; axes that are taken whole pass through."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from td.compact.rules.base import Operation
from td.compact.rules.passing import Passing, along, passing_rule
from td.compact.values import Value
from td.program.indices import others

KEEPING = {"scatter-add": 0, "scatter-sub": 0, "scatter-mul": 1}
"""Updates that change nothing."""


def _passing(op: Operation) -> Passing:
    """The operands of a gather are an array and indices; a scatter has updates too."""
    shape, several = op.shapes[0], len(op.shapes)
    if op.name.startswith("dynamic"):
        taken = op.params["slice_sizes"] if op.name == "dynamic_slice" else op.shapes[1]
        update = 2 if op.name == "dynamic_update_slice" else 1
        return {a: (a,) * update + (None,) * (several - update) for a, n in enumerate(shape) if taken[a] == n}
    numbers, reads = op.params["dimension_numbers"], op.name == "gather"
    if reads:
        names = ["start_indices_batching_dims", "collapsed_slice_dims", "start_index_map", "offset_dims"]
    else:
        names = ["scatter_indices_batching_dims", "inserted_window_dims", "scatter_dims_to_operand_dims"]
        names += ["update_window_dims"]
    alongside, dropped, started, window = (getattr(numbers, name) for name in names)
    batching, moving = numbers.operand_batching_dims, op.shape if reads else op.shapes[2]
    # Of the gathered slices or the updates, axes by those of the array, of windows and of a batch.
    pairs = dict(zip(others(len(shape), *dropped, *batching), window, strict=True))
    whole = [(a, None, w) for a, w in pairs.items() if moving[w] == shape[a] and a not in started]
    rest = others(len(moving), *window)
    whole += [(a, i, rest[i]) for a, i in zip(batching, alongside, strict=True)]
    return {w: (a, i) for a, i, w in whole} if reads else {a: (a, i, w) for a, i, w in whole}


def _read(op: Operation, values: Sequence[Value]) -> Value:
    live, constant, _ = along(op, values[0], _passing(op))
    filled = op.params.get("fill_value")
    # Indices out of range, which NaN or the farthest whole number marks as errors.
    if filled is not None and filled == filled and not _is_farthest(filled, op.dtype):
        live = live | (constant != filled)
    return Value(live, constant)


def _is_farthest(filled: Any, dtype: np.dtype) -> bool:
    if not jnp.issubdtype(dtype, jnp.integer):
        return False
    limits = jnp.iinfo(dtype)
    return filled == (limits.min if limits.min else limits.max)


def _written(op: Operation, values: Sequence[Value]) -> Value:
    """Constant where the array and what is written to it agree, or where that changes nothing."""
    place = 1 if op.name == "dynamic_update_slice" else 2
    (live, constant, _), updates = (along(op, values[operand], _passing(op), operand) for operand in (0, place))
    written = updates.live | (updates.constant != KEEPING.get(op.name, constant))
    return Value(live | (written & (constant != 0) if op.name == "scatter-mul" else live | written), constant)


READING, WRITING = passing_rule(_passing, _read), passing_rule(_passing, _written)
SCATTERS = ("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max")
RULES = {
    **dict.fromkeys(("gather", "dynamic_slice"), READING),
    **dict.fromkeys((*SCATTERS, "dynamic_update_slice"), WRITING),
}
