"""What is known of a value before any input is seen: arrays of its rank, of size 1 wherever nothing differs."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Broadcastable = Any
"""An array of a value's rank, of full size or of size 1 on every axis."""

KeptIndices = tuple[Broadcastable | None, ...]
"""For every axis the indices that are computed, in order; None for all."""

Shape = Sequence[Any]
"""The sizes of an array's axes; that of the batch is a symbol in a program for batches of any size."""


class Value(NamedTuple):
    """`live`: entries that depend on the inputs. `constant`: the others, 0 where live. `known`: params alone decide."""

    live: Broadcastable
    constant: Broadcastable
    known: bool = False


def on_host(array: Any) -> Broadcastable:
    """A copy to calculate constants with, half precisions widened."""
    host = np.asarray(array)
    narrow = jax.dtypes.issubdtype(host.dtype, jnp.floating) and host.dtype.itemsize < 4
    return host.astype(np.float32) if narrow else host


def host_dtype(dtype: Any) -> Any:
    """What constants of a dtype are calculated in on the host."""
    return on_host(np.zeros((), dtype)).dtype


def stored_as(constant: Broadcastable, dtype: Any) -> Broadcastable:
    """A constant as the network has it: halves rounded, whole numbers wrapped."""
    return constant if is_key(dtype) else on_host(constant.astype(dtype, copy=False))


def is_key(dtype: Any) -> bool:
    """Whether arrays of it are keys of random numbers, which are not looked into."""
    return bool(jax.dtypes.issubdtype(dtype, jax.dtypes.extended))


def number(array: Any) -> Value:
    """A value that is given."""
    host = on_host(array)
    return Value(np.zeros((1,) * host.ndim, bool), host, known=True)


def unknown(rank: int) -> Value:
    """A value of which every entry is live."""
    return Value(np.ones((1,) * rank, bool), np.zeros((1,) * rank, np.float32))


def sized(small: Broadcastable, axes: Sequence[int], shape: Shape) -> Broadcastable:
    """The array with its full size on some axes."""
    wanted = [shape[a] if a in axes else small.shape[a] for a in range(small.ndim)]
    return np.broadcast_to(small, wanted)


def any_over(flags: Broadcastable, axes: Sequence[int]) -> Broadcastable:
    """Whether any is true along some axes, which stay with size 1."""
    return np.asarray(flags.any(axis=tuple(axes), keepdims=True)) if axes else flags


def uniform(small: Broadcastable, axis: int) -> bool:
    """Whether nothing differs along an axis."""
    return small.shape[axis] <= 1 or bool((small == np.take(small, [0], axis)).all())


def settle(live: Broadcastable, constant: Broadcastable, dynamic_axes: Sequence[bool]) -> Value:
    """The smallest form. Constants that differ along an axis that grows with the inputs count as live."""
    live = live | (np.isnan(constant) if np.issubdtype(constant.dtype, np.inexact) else False)
    constant = np.where(live, np.zeros((), constant.dtype), constant)
    for axis in range(live.ndim):
        if dynamic_axes[axis]:
            live, constant = merged(live, constant, [axis])
            constant = np.where(live, np.zeros((), constant.dtype), constant)
    for axis in range(live.ndim):
        if uniform(live, axis) and uniform(constant, axis):
            live, constant = (np.take(a, [0], axis) if a.shape[axis] > 1 else a for a in (live, constant))
    return Value(live, constant)


def merged(live: Broadcastable, constant: Broadcastable, axes: Sequence[int]) -> tuple[Broadcastable, Broadcastable]:
    """Of size 1 along some axes: live where any entry is, or where constants differ."""
    both = np.broadcast_shapes(live.shape, constant.shape)
    live, constant = np.broadcast_to(live, both), np.broadcast_to(constant, both)
    for axis in axes:
        first = np.take(constant, [0], axis) if both[axis] else constant
        live, constant = any_over(live | (constant != first), [axis]), first
    return live, constant


def along(value: Value, axis: int, size: Any) -> tuple[Broadcastable, Broadcastable]:
    """`live` and `constant` as vectors along one axis; what differs along any other axis counts as live."""
    others = [a for a in range(value.live.ndim) if a != axis]
    both = np.broadcast_shapes(value.live.shape, value.constant.shape)
    live, constant = np.broadcast_to(value.live, both), np.broadcast_to(value.constant, both)
    first = constant[tuple(slice(None) if a == axis else slice(0, 1) for a in range(constant.ndim))]
    live = any_over(live | (constant != first), others)
    constant = np.where(live, np.zeros((), constant.dtype), first)
    return np.broadcast_to(live.reshape(-1), (size,)), np.broadcast_to(constant.reshape(-1), (size,))


def on_axis(vector: Broadcastable, axis: int, rank: int) -> Broadcastable:
    """A vector as a small array."""
    return vector.reshape([-1 if a == axis else 1 for a in range(rank)])


def projected(flags: Broadcastable, shape: Shape) -> KeptIndices | None:
    """The indices of every axis at which anything is true; None where nothing is."""
    if not flags.any() or 0 in shape:
        return None
    kept: list[Broadcastable | None] = []
    for axis in range(flags.ndim):
        line = flags.any(axis=tuple(a for a in range(flags.ndim) if a != axis))
        kept.append(None if line.all() else np.flatnonzero(line))
    return tuple(kept)


def product(kept: KeptIndices, shape: Shape) -> Broadcastable:
    """The entries that some kept indices stand for."""
    flags = np.ones((1,) * len(kept), bool)
    for axis, indices in enumerate(kept):
        if indices is not None:
            line = np.zeros(shape[axis], bool)
            line[indices] = True
            flags = flags & on_axis(line, axis, len(kept))
    return flags


Seen = Sequence[tuple[Shape, Shape]]
"""Shapes before and after a reshape, at other sizes of the inputs."""


def blocks(before: Shape, after: Shape, seen: Seen = ()) -> list[tuple[list[int], list[int]]]:
    """Which axes of a reshaped array come from which: the finest runs that are so at every size that was seen.

    An axis of size 1 says nothing: of one batch, `[1, 6]` becomes `[6, 1]` by moving no entry, of two by moving many.
    """
    ends = [_ends(_runs(*shapes)) for shapes in ((before, after), *seen)]
    common = sorted(set(ends[0]).intersection(*ends[1:]))
    starts = [(0, 0), *common]
    return [(list(range(i, m)), list(range(j, n))) for (i, j), (m, n) in pairwise(starts)]


def _ends(runs: list[tuple[list[int], list[int]]]) -> list[tuple[int, int]]:
    """How many axes before and after lie up to the end of each run."""
    counts = np.cumsum([(len(old), len(new)) for old, new in runs], axis=0)
    return [(int(old), int(new)) for old, new in counts.reshape(-1, 2)]


def _runs(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """The finest runs of equal product; lone axes of size 1 apart."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and before[i] == 1:
            found.append(([i], [])) if not (j < len(after) and after[j] == 1) else found.append(([i], [j]))
            j += j < len(after) and after[j] == 1
            i += 1
            continue
        if j < len(after) and after[j] == 1:
            found.append(([], [j]))
            j += 1
            continue
        old, new = [i], [j]
        while math.prod(before[a] for a in old) != math.prod(after[a] for a in new):
            if math.prod(before[a] for a in old) < math.prod(after[a] for a in new):
                old.append(old[-1] + 1)
            else:
                new.append(new[-1] + 1)
        found.append((old, new))
        i, j = old[-1] + 1, new[-1] + 1
    return found


def reshaped(small: Broadcastable, before: Shape, after: Shape, seen: Seen = ()) -> Broadcastable:
    """A small array of a value, as one of the reshaped value."""
    sizes, result = [1] * len(after), small
    for old, new in blocks(before, after, seen):
        if any(small.shape[a] > 1 for a in old):
            result = sized(result, old, before)
            for axis in new:
                sizes[axis] = after[axis]
    return result.reshape(sizes)


def width(indices: Broadcastable | None, size: Any) -> Any:
    """How many are kept."""
    return size if indices is None else len(indices)


def on_line(flags: Broadcastable, axis: int, size: int) -> Broadcastable:
    """Flags along one axis: whether any is true."""
    return np.broadcast_to(any_over(flags, [a for a in range(flags.ndim) if a != axis]).ravel(), (size,))


def indices_of(flags: Broadcastable) -> Broadcastable | None:
    """Where flags are true; None for everywhere."""
    return None if flags.all() else np.flatnonzero(flags)


def flags_of(indices: Broadcastable | None, size: int) -> Broadcastable:
    """True at some indices."""
    flags = np.full(size, indices is None)
    if indices is not None:
        flags[indices] = True
    return flags
