"""Abstract values of constant propagation: arrays of a value's rank, of size 1 along axes without differences."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from td.compact.indices import Broadcastable, Shape, any_over, sized


class Value(NamedTuple):
    """Abstract value in constant propagation; both arrays have the same shape.

    Attributes:
      live: True where the entry depends on the inputs.
      constant: its value where `live` is False, else 0.
      known: params alone determine the value.
    """

    live: Broadcastable
    constant: Broadcastable
    known: bool = False

    def map(self, function: Callable[[Broadcastable], Broadcastable]) -> "Value":
        """The value with both arrays moved alike."""
        return Value(function(self.live), function(self.constant))


def on_host(array: Any) -> Broadcastable:
    """Copy to NumPy, half precisions widened."""
    host = np.asarray(array)
    narrow = jax.dtypes.issubdtype(host.dtype, jnp.floating) and host.dtype.itemsize < 4
    return host.astype(np.float32) if narrow else host


def host_dtype(dtype: Any) -> Any:
    """The dtype that constants are computed in on the host."""
    return on_host(np.zeros((), dtype)).dtype


def is_key(dtype: Any) -> bool:
    """Test for keys of random numbers, which stay opaque."""
    return bool(jax.dtypes.issubdtype(dtype, jax.dtypes.extended))


def joined(live: Broadcastable, constant: Broadcastable, known: bool = False) -> Value:
    """Broadcast both arrays to one shape."""
    shape = np.broadcast_shapes(live.shape, constant.shape)
    return Value(np.broadcast_to(live, shape), np.broadcast_to(constant, shape), known)


def number(array: Any) -> Value:
    """A given array."""
    return joined(np.zeros((), bool), on_host(array), known=True)


def unknown(rank: int) -> Value:
    """A value of which every entry is live."""
    return Value(np.ones((1,) * rank, bool), np.zeros((1,) * rank, np.float32))


def settle(value: Value, dynamic_axes: Sequence[bool]) -> Value:
    """The smallest form; constants that differ along a dynamic axis, and NaN, become live."""
    live, constant, _ = value
    if np.issubdtype(constant.dtype, np.inexact):
        live = live | np.isnan(constant)
    live, constant, _ = merged(Value(live, constant), np.flatnonzero(dynamic_axes).tolist())
    constant = np.where(live, np.zeros((), constant.dtype), constant)
    for axis, size in enumerate(live.shape):
        if size > 1 and all((a == np.take(a, [0], axis)).all() for a in (live, constant)):
            live, constant = np.take(live, [0], axis), np.take(constant, [0], axis)
    return Value(live, constant)


def merged(value: Value, axes: Sequence[int]) -> Value:
    """Reduce some axes to size 1: live where any entry is, or where constants differ."""
    live, constant, _ = value
    for axis in axes:
        first = np.take(constant, [0], axis) if constant.shape[axis] else constant
        live, constant = any_over(live | (constant != first), [axis]), first
        constant = np.where(live, np.zeros((), constant.dtype), constant)
    return Value(live, constant)


Seen = Sequence[tuple[Shape, Shape]]
"""Shapes before and after a reshape, at other sizes of the inputs."""


def blocks(before: Shape, after: Shape, seen: Seen = ()) -> list[tuple[list[int], list[int]]]:
    """The finest runs of axes that a reshape maps to each other, at every size that was seen.

    An axis of size 1 shows nothing: for a batch of one, `[1, 6]` becomes `[6, 1]` without moving an entry.
    """
    ends = [_ends(tuple(old), tuple(new)) for old, new in ((before, after), *seen)]
    common = sorted(set(ends[0]).intersection(*ends[1:]))
    return [(list(range(i, m)), list(range(j, n))) for (i, j), (m, n) in pairwise([(0, 0), *common])]


def _ends(before: tuple[Any, ...], after: tuple[Any, ...]) -> list[tuple[int, int]]:
    """The number of axes before and after, up to the end of each run of equal product; axes of size 1 apart."""
    ends, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        lone = before[i : i + 1] == (1,), after[j : j + 1] == (1,)
        if any(lone):
            i, j = i + lone[0], j + lone[1]
        else:
            start, i, j = (i, j), i + 1, j + 1
            while (old := math.prod(before[start[0] : i])) != (new := math.prod(after[start[1] : j])):
                i, j = (i + 1, j) if old < new else (i, j + 1)
        ends.append((i, j))
    return ends


def reshaped(small: Broadcastable, before: Shape, after: Shape, seen: Seen = ()) -> Broadcastable:
    """Reshape a small array as the value is reshaped."""
    sizes, result = [1] * len(after), small
    for old, new in blocks(before, after, seen):
        if any(small.shape[a] > 1 for a in old):
            result = sized(result, old, before)
            for axis in new:
                sizes[axis] = after[axis]
    return result.reshape(sizes)
