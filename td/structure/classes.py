"""Classes of units that a function ties together: union-find on arrays of ids, and labels of several values."""

import math
from collections.abc import Sequence

import numpy as np

from td.program.indices import Shape, any_over
from td.structure.values import Axes, Ids, Known, Labels, Live, Value, joined_live, meet, varying

NONE, ANY = 0, -1
"""Ids of entries that belong to no unit, and of known entries, which match every unit."""

STATISTIC, VECTOR = -1, -2
"""In the place of a kernel: ids of sums over units and of inputs, and ids of scales and offsets."""


class Classes:
    """Ids of units and statistics, each with its kernel and its place there, and the classes that they form."""

    def __init__(self) -> None:
        self.size = 1
        self.factors: list[Ids] = []  # units that multiply several others each
        self.parent = np.zeros(1, int)  # for every id another one of its class, which leads to its root
        self.kernel = np.full(1, STATISTIC)  # the leaf that makes a unit, else STATISTIC or VECTOR
        self.unit = np.full(1, -1)  # the number of a unit in its kernel; the leaf of a scale or offset

    def new(self, shape: Axes, kernel: int = STATISTIC, units: Ids = -1) -> Ids:
        """Make ids, of the units of a kernel or of a statistic."""
        ids = np.arange(self.size, self.size + math.prod(shape))
        self.size += len(ids)
        if len(self.parent) < self.size:  # twice as large, so that few copies are made
            more = np.zeros(self.size, int)
            self.parent, self.kernel, self.unit = (np.append(a, more) for a in (self.parent, self.kernel, self.unit))
        self.parent[ids], self.kernel[ids], self.unit[ids] = ids, kernel, np.broadcast_to(units, shape).ravel()
        return ids.reshape(shape)

    def roots(self, ids: Ids) -> Ids:
        """The class of each id."""
        known = np.maximum(ids, 0)
        root = self.parent[known]
        while (up := self.parent[root]).size and (up != root).any():
            root = up
        self.parent[known] = root
        return np.where(ids > 0, root, ids)

    def unite(self, one: Ids, other: Ids) -> None:
        """Put every pair of ids into one class."""
        one, other = np.broadcast_arrays(one, other)
        both = (one > 0) & (other > 0)
        pairs = np.stack(np.divmod(np.unique(one[both] * self.size + other[both]), self.size))
        while True:
            first, second = self.roots(pairs)
            apart = first != second
            if not apart.any():
                return
            pairs = pairs[:, apart]
            np.minimum.at(self.parent, np.maximum(first, second)[apart], np.minimum(first, second)[apart])

    def of_units(self, ids: Ids) -> Ids:
        """True for ids of units, False for those of statistics."""
        return (ids > 0) & (self.kernel[np.maximum(ids, 0)] >= 0)

    def has_units(self, labels: Labels) -> bool:
        """Test for a unit."""
        return any(self.of_units(ids).any() for ids in labels)

    def of_vectors(self, ids: Ids) -> Ids:
        """True for ids of scales and offsets."""
        return (ids > 0) & (self.kernel[np.maximum(ids, 0)] == VECTOR)

    def of_either(self, ids: Ids) -> Ids:
        """True for ids of units, scales and offsets."""
        return self.of_units(ids) | self.of_vectors(ids)

    def settled(self, ids: Ids) -> Ids:
        """The smallest form: size 1 along axes without differences, known entries matching every unit."""
        for axis, size in enumerate(ids.shape):
            top = ids.max(axis=axis, keepdims=True) if size > 1 else ids
            if size > 1 and ((ids == top) | (ids == ANY)).all():
                ids = top
        return ids

    def summed(self, ids: Ids, axes: Axes) -> Ids | None:
        """Ids of a sum over some axes, which stay with size 1; None where the sum shows no unit and no statistic."""
        axes = [axis for axis in axes if ids.shape[axis] > 1]
        if not axes:
            return ids
        first = ids.max(axis=tuple(axes), keepdims=True)
        units, top = self.of_units(ids), np.maximum(first, 0)
        # One unit of several slices of a stack is one thing; several units of a kernel are a statistic.
        same = (self.kernel[ids] == self.kernel[top]) & (self.unit[ids] == self.unit[top])
        apart = units & (self.roots(ids) != self.roots(first)) & ~same
        if apart.any() or not units.any():
            if first.size == 1:
                return None
            return self.new(first.shape)
        self.unite(np.where(units, ids, NONE), first)
        return np.where(any_over(ids == NONE, axes), NONE, first) if first.size > 1 else None


def merged(classes: Classes, operands: Sequence[Labels], adds: bool) -> list[Ids]:
    """Labels of several operands, those that vary along the same axes joined."""
    result: list[Ids] = []
    for labels in operands:
        rest, before, result = list(labels), result, []
        for ids in before:
            meeting, rest = [each for each in rest if meet(each, ids)], [each for each in rest if not meet(each, ids)]
            for other in meeting:
                ids = joined(classes, ids, other, adds)
            result.append(ids)
        result += rest
    return result


def joined(classes: Classes, one: Ids, other: Ids, adds: bool) -> Ids:
    """Unite units with units; a unit to which a statistic is added that tells units apart is no unit of its own."""
    coarse, fine = sorted((one, other), key=lambda ids: len(varying(ids)))
    units = classes.of_units(one), classes.of_units(other)
    if not adds and units[0].any() and units[1].any() and set(varying(coarse)) < set(varying(fine)):
        classes.factors.append(coarse)  # as the gate of an expert, which is none of its units
        return fine
    classes.unite(np.where(units[0], one, NONE), np.where(units[1], other, NONE))
    first = units[0] | ((one > 0) & ~units[1]) | ((other <= 0) & (one != ANY))
    result: Ids = np.where(first, one, other)
    for own, theirs, mine in ((one, other, units[0] & ~units[1]), (other, one, units[1] & ~units[0])):
        vectors = classes.of_vectors(theirs)
        if _tell_apart(classes, own, theirs, mine & vectors):
            classes.unite(np.where(mine & vectors, own, NONE), theirs)
        mixed = mine & (theirs > 0) & ~vectors
        if adds and _tell_apart(classes, own, theirs, mixed):
            result = np.where(mixed, theirs, result)
    return classes.settled(result)


def _tell_apart(classes: Classes, units: Ids, others: Ids, where: Ids) -> bool:
    """Test for as many other ids as units."""
    units, others = (np.broadcast_to(ids, where.shape)[where] for ids in (units, others))
    return len(others) > 0 and len(np.unique(others)) >= len(np.unique(classes.roots(units)))


def cut(value: Value, axis: int, start: int, stop: int) -> Value:
    """A live value's slice along one axis."""
    if isinstance(value, Known):
        return Known(mixed=value.leaves)
    place = (slice(None),) * axis + (slice(start, stop),)
    return value.with_labels([ids[place] if ids.shape[axis] > 1 else ids for ids in value.labels])


def side_by_side(classes: Classes, values: Sequence[Value], shapes: Sequence[Shape], axis: int) -> Live:
    """A concatenation; known parts match every unit."""
    fillers = [np.full((1,) * len(shapes[0]), ANY if isinstance(value, Known) else NONE) for value in values]
    rows: list[list[Ids]] = []
    for place, value in enumerate(values):
        own = list(value.labels) if isinstance(value, Live) else []
        for row in rows:
            row.append(_matching(row, own, axis, fillers[place]))
        rows += [[*fillers[:place], ids] for ids in own]
    labels = []
    for row in rows:
        common = np.broadcast_shapes(*([1 if a == axis else n for a, n in enumerate(ids.shape)] for ids in row))
        sizes = [[shape[axis] if a == axis else n for a, n in enumerate(common)] for shape in shapes]
        parts = [np.broadcast_to(ids, size) for ids, size in zip(row, sizes, strict=True)]
        labels.append(classes.settled(np.concatenate(parts, axis)))
    return joined_live(values).with_labels(labels)


def _matching(row: Labels, own: list[Ids], axis: int, filler: Ids) -> Ids:
    """Take the label that continues a row: one that varies along the same axes besides that of the concatenation."""
    kinds = {a for ids in row for a in varying(ids)} - {axis}
    for i, ids in enumerate(own):
        across = set(varying(ids)) - {axis}
        if across & kinds or not (across or kinds):
            return own.pop(i)
    return filler
