"""Indices and flags of arrays, axis by axis."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

Broadcastable = Any
"""An array of a value's rank, of full size or of size 1 on every axis."""

KeptIndices = tuple[Broadcastable | None, ...]
"""For every axis the indices that are computed, in order; None for all."""

Shape = Sequence[Any]
"""The sizes of an array's axes; the batch's is symbolic in a program for batches of any size."""


def everything(shape: Shape) -> KeptIndices:
    """All indices."""
    return (None,) * len(shape)


def width(indices: Broadcastable | None, size: Any) -> Any:
    """The number of kept indices of an axis."""
    return size if indices is None else len(indices)


def sizes(kept: KeptIndices, shape: Shape) -> tuple[Any, ...]:
    """The shape of the kept indices."""
    return tuple(width(indices, size) for indices, size in zip(kept, shape, strict=True))


def alike(one: Broadcastable | None, other: Broadcastable | None) -> bool:
    """Compare kept indices of an axis."""
    return one is other if one is None or other is None else np.array_equal(one, other)


def flags_of(indices: Sequence[int] | Broadcastable | None, size: int) -> Broadcastable:
    """True at some indices; everywhere for None."""
    return np.ones(size, bool) if indices is None else np.isin(np.arange(size), indices)


def indices_of(flags: Broadcastable) -> Broadcastable | None:
    """The indices of true flags; None for all."""
    return None if flags.all() else np.flatnonzero(flags)


def on_axis(vector: Broadcastable, axis: int, rank: int) -> Broadcastable:
    """Place a vector along one axis."""
    return vector.reshape([-1 if a == axis else 1 for a in range(rank)])


def on_axes(small: Broadcastable, placed: Mapping[Any, Any], rank: int) -> Broadcastable:
    """Move axes to their places in an array of some rank; all others have size 1."""
    order = sorted(placed, key=lambda axis: placed[axis])
    sizes = {place: small.shape[axis] for axis, place in placed.items()}
    return small.transpose([*order, *others(small.ndim, *order)]).reshape([sizes.get(a, 1) for a in range(rank)])


def placed_at(small: Broadcastable, places: Sequence[Any], rank: int) -> Broadcastable:
    """Move the axes of an array to places in one of some rank; all others have size 1."""
    return on_axes(small, dict(enumerate(places)), rank)


def on_line(flags: Broadcastable, axis: int, size: int) -> Broadcastable:
    """Reduce flags by `any` to a vector along one axis."""
    return np.broadcast_to(any_over(flags, others(flags.ndim, axis)).ravel(), (size,))


def any_over(flags: Broadcastable, axes: Sequence[Any]) -> Broadcastable:
    """Reduce flags by `any` along some axes, which stay with size 1."""
    return np.asarray(flags.any(axis=tuple(axes), keepdims=True)) if axes else flags


def sized(small: Broadcastable, axes: Sequence[Any], shape: Shape) -> Broadcastable:
    """Broadcast some axes to their full size."""
    return np.broadcast_to(small, [shape[a] if a in axes else size for a, size in enumerate(small.shape)])


def padded_places(config: Sequence[int], size: int, whole: int) -> tuple[Broadcastable, Broadcastable]:
    """The indices of an axis that padding keeps, and where the longer or shorter axis has them."""
    low, _, between = config
    places = low + np.arange(size) * (between + 1)
    inside = np.flatnonzero((places >= 0) & (places < whole))
    return inside, places[inside]


def spread(small: Broadcastable, places: Broadcastable, axis: int, size: int, fill: Any) -> Broadcastable:
    """Place the entries of an axis in a longer one."""
    moved = np.moveaxis(small, axis, 0)
    whole = np.full((size, *moved.shape[1:]), fill, np.result_type(small, fill))
    whole[places] = moved
    return np.moveaxis(whole, 0, axis)


def others(rank: int, *axes: Any) -> list[int]:
    """All axes but some."""
    return [axis for axis in range(rank) if axis not in axes]


def projected(flags: Broadcastable, shape: Shape) -> KeptIndices | None:
    """The indices of every axis at which any flag is true; None where none is."""
    if not flags.any() or 0 in shape:
        return None
    return tuple(indices_of(on_line(flags, axis, size)) for axis, size in enumerate(flags.shape))


def rectangle(kept: KeptIndices, shape: Shape) -> Broadcastable:
    """Flags of the rectangle of some kept indices."""
    flags = np.ones((1,) * len(kept), bool)
    for axis, indices in enumerate(kept):
        if indices is not None:
            flags = flags & on_axis(flags_of(indices, shape[axis]), axis, len(kept))
    return flags


MOST_SLICES = 64
"""Slices up to which they are concatenated: around a gather, XLA:CPU changes the layout of what convolutions meet."""


def take(array: Array, indices: Broadcastable, axis: int) -> Array:
    """Select indices of an axis: a slice where they are evenly spaced, else few slices or a gather; never a product."""
    if len(indices) == 0:
        return lax.slice_in_dim(array, 0, 0, axis=axis)
    steps = np.unique(np.diff(indices)) if len(indices) > 1 else [1]
    if len(steps) == 1 and steps[0] > 0:
        return lax.slice_in_dim(array, int(indices[0]), int(indices[-1]) + 1, int(steps[0]), axis)
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    if len(runs) > MOST_SLICES:
        return jnp.take(array, indices, axis=axis, mode="clip")
    return lax.concatenate([lax.slice_in_dim(array, int(run[0]), int(run[-1]) + 1, axis=axis) for run in runs], axis)


def take_kept(array: Broadcastable, kept: KeptIndices | None) -> Broadcastable:
    """Select the kept indices of an array on the host, along its axes of full size."""
    for axis, indices in enumerate(kept or ()):
        if indices is not None and array.shape[axis] > 1:
            array = np.take(array, indices, axis)
    return array


def narrow(array: Array, have: KeptIndices, wanted: KeptIndices) -> Array:
    """Select wanted indices of those that an array has."""
    for axis, (held, asked) in enumerate(zip(have, wanted, strict=True)):
        if asked is not None and not alike(held, asked):
            array = take(array, asked if held is None else np.searchsorted(held, asked), axis)
    return array


def blocks(before: Shape, after: Shape, seen: Sequence[tuple[Shape, Shape]] = ()) -> list[tuple[list[int], list[int]]]:
    """The finest runs of axes that a reshape maps to each other, at every size that was seen."""
    # An axis of size 1 shows nothing: for a batch of one, `[1, 6]` becomes `[6, 1]` without moving an entry.
    shapes = seen if any(map(is_symbolic_dim, (*before, *after))) else ((before, after), *seen)
    ends = [_ends(tuple(old), tuple(new)) for old, new in shapes]
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


def reshaped(
    small: Broadcastable, before: Shape, after: Shape, seen: Sequence[tuple[Shape, Shape]] = ()
) -> Broadcastable:
    """Reshape a small array as the value is reshaped."""
    sizes, result = [1] * len(after), small
    for old, new in blocks(before, after, seen):
        if any(small.shape[a] > 1 for a in old):
            result = sized(result, old, before)
            for axis in new:
                sizes[axis] = after[axis]
    return result.reshape(sizes)
