"""Values of the trace: known ones as entries of a leaf, live ones as units along their axes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from td.compact.indices import Broadcastable, Shape, others
from td.compact.values import blocks

Vectors = tuple[Broadcastable, ...]


class Known(NamedTuple):
    """A value that depends on no input.

    Attributes:
      leaf: the leaf that it is an arrangement of, up to scaling and casts; None where it is no such thing.
      start: with `vectors`, entry `[i, j, ...]` is entry `start + vectors[0][i] + vectors[1][j] + ...` of the leaf.
      vectors: one an axis; of size 1 along axes without differences.
      number: whole numbers that the function computes from its own constants, else None.
    """

    leaf: int | None = None
    start: int = 0
    vectors: Vectors = ()
    number: Any = None


class Live(NamedTuple):
    """A value that depends on the inputs.

    Attributes:
      labels: ids of units, arrays of the value's rank and of size 1 along axes without differences; those of different
        labels vary along different axes.
      kernels: those whose outputs reach it through no other kernel.
      fresh: no kernel lies between the inputs and it.
      revived: something was added to its units, which a dead one shows.
    """

    labels: tuple[Broadcastable, ...] = ()
    kernels: frozenset[int] = frozenset()
    fresh: bool = False
    revived: bool = False

    def with_labels(self, labels: Sequence[Broadcastable]) -> "Live":
        """The value with other labels; those that tell no entries apart are dropped."""
        return self._replace(labels=tuple(ids for ids in labels if ids.size > 1 and (ids > 0).any()))


def of_leaf(leaf: int, shape: Shape) -> Known:
    """A leaf itself."""
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return Known(leaf, 0, tuple(np.arange(size) * step for size, step in zip(shape, steps, strict=True)))


def varying(ids: Broadcastable) -> list[int]:
    """The axes along which entries differ."""
    return [axis for axis, size in enumerate(ids.shape) if size > 1]


def entries(known: Known, axes: Sequence[int], shape: Shape, leaf_shape: Shape) -> list[Broadcastable] | None:
    """The leaf's coordinates on the grid of some axes of a value, one array for every axis of the leaf.

    None where a leaf's axis is split between these axes and the others.
    """
    inside = _flat(known, axes, shape)
    coordinates = [np.asarray(line) for line in np.unravel_index(inside, leaf_shape)]
    rest = others(len(shape), *axes)
    for axis in rest:
        outside = np.unravel_index(known.start + known.vectors[axis], leaf_shape)
        base = np.unravel_index(known.start + known.vectors[axis][0], leaf_shape)
        for line, own, first in zip(coordinates, outside, base, strict=True):
            if (own != first).any() and (line != line.ravel()[0]).any():
                return None
    return coordinates


def leaf_axes(known: Known, axes: Sequence[int], leaf_shape: Shape) -> set[int]:
    """The leaf's axes along which some axes of a value run."""
    found: set[int] = set()
    for axis in axes:
        lines = np.unravel_index(known.start + known.vectors[axis], leaf_shape)
        found |= {place for place, line in enumerate(lines) if (line != line[0]).any()}
    return found


def _flat(known: Known, axes: Sequence[int], shape: Shape) -> Broadcastable:
    total = np.asarray(known.start)
    for axis in axes:
        total = total[..., None] + np.broadcast_to(known.vectors[axis], (shape[axis],))
    return total


def reshape_known(known: Known, before: Shape, after: Shape) -> Known | None:
    """Reshape; None where the result is no longer a sum of vectors."""
    vectors: list[Broadcastable] = [np.zeros(1, int) for _ in after]
    for old, new in blocks(before, after):
        if all(known.vectors[axis].size == 1 for axis in old):
            continue
        joint = _flat(known._replace(start=0), old, before).reshape([after[axis] for axis in new])
        split = separated(joint)
        if split is None:
            return None
        for axis, vector in zip(new, split, strict=True):
            vectors[axis] = vector
    constant = sum(int(v[0]) for v in known.vectors) - sum(int(v[0]) for v in vectors)
    return known._replace(start=known.start + constant, vectors=tuple(vectors))


def separated(joint: Broadcastable) -> list[Broadcastable] | None:
    """Write an array as a sum of one vector an axis."""
    if joint.size == 0:
        return None
    first = joint.ravel()[0]
    vectors = [np.moveaxis(joint, axis, 0).reshape(size, -1)[:, 0] - first for axis, size in enumerate(joint.shape)]
    total = np.asarray(first)
    for vector in vectors:
        total = total[..., None] + vector
    if not vectors or (total != joint).any():
        return None if vectors else []
    return [vectors[0] + first, *vectors[1:]]
