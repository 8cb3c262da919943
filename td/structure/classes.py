"""Classes of units that a function ties together: union-find on arrays of ids."""

import math
from collections.abc import Sequence

import numpy as np

from td.compact.indices import Broadcastable, any_over

NONE, ANY = 0, -1
"""Ids of entries that belong to no unit, and of known entries, which match every unit."""

STATISTIC, VECTOR = -1, -2
"""In the place of a kernel: ids of sums over units and of inputs, and ids of scales and offsets."""


class Classes:
    """Ids of units and statistics, each with its kernel and its place there, and the classes that they form."""

    def __init__(self) -> None:
        self.count = 1
        self.factors: list[Broadcastable] = []  # units that multiply several others each
        self._arrays = {"parent": np.zeros(1, int), "kernel": np.full(1, STATISTIC), "unit": np.full(1, -1)}

    @property
    def parent(self) -> Broadcastable:
        """For every id another one of its class, which leads to its root."""
        return self._arrays["parent"][: self.count]

    @property
    def kernel(self) -> Broadcastable:
        """The leaf that makes a unit, else STATISTIC or VECTOR."""
        return self._arrays["kernel"][: self.count]

    @property
    def unit(self) -> Broadcastable:
        """The number of a unit in its kernel; the leaf of a scale or offset."""
        return self._arrays["unit"][: self.count]

    def new(self, shape: Sequence[int], kernel: int = STATISTIC, units: Broadcastable = -1) -> Broadcastable:
        """Make ids, of the units of a kernel or of a statistic."""
        ids = np.arange(self.count, self.count + math.prod(shape))
        self.count += len(ids)
        for name, numbers in (("parent", ids), ("kernel", kernel), ("unit", np.broadcast_to(units, shape).ravel())):
            if len(self._arrays[name]) < self.count:  # twice as large, so that few copies are made
                self._arrays[name] = np.concatenate([self._arrays[name], np.zeros(self.count, int)])
            self._arrays[name][ids] = numbers
        return ids.reshape(shape)

    def roots(self, ids: Broadcastable) -> Broadcastable:
        """The class of each id."""
        known = np.maximum(ids, 0)
        root = self.parent[known]
        while (up := self.parent[root]).size and (up != root).any():
            root = up
        self.parent[known] = root
        return np.where(ids > 0, root, ids)

    def unite(self, one: Broadcastable, other: Broadcastable) -> None:
        """Put every pair of ids into one class."""
        one, other = np.broadcast_arrays(one, other)
        both = (one > 0) & (other > 0)
        pairs = np.unique(np.stack([one[both], other[both]]), axis=1)
        while True:
            first, second = self.roots(pairs)
            apart = first != second
            if not apart.any():
                return
            pairs = pairs[:, apart]
            np.minimum.at(self.parent, np.maximum(first, second)[apart], np.minimum(first, second)[apart])

    def of_units(self, ids: Broadcastable) -> Broadcastable:
        """True for ids of units, False for those of statistics."""
        return (ids > 0) & (self.kernel[np.maximum(ids, 0)] >= 0)

    def of_vectors(self, ids: Broadcastable) -> Broadcastable:
        """True for ids of scales and offsets."""
        return (ids > 0) & (self.kernel[np.maximum(ids, 0)] == VECTOR)

    def of_either(self, ids: Broadcastable) -> Broadcastable:
        """True for ids of units, scales and offsets."""
        return self.of_units(ids) | self.of_vectors(ids)

    def settled(self, ids: Broadcastable) -> Broadcastable:
        """The smallest form: size 1 along axes without differences, known entries matching every unit."""
        for axis, size in enumerate(ids.shape):
            top = ids.max(axis=axis, keepdims=True) if size > 1 else ids
            if size > 1 and ((ids == top) | (ids == ANY)).all():
                ids = top
        return ids

    def summed(self, ids: Broadcastable, axes: Sequence[int]) -> Broadcastable | None:
        """Ids of a sum over some axes, which stay with size 1; None where the sum shows no unit and no statistic.

        One unit of several slices of a stack is one thing; several units of a kernel are a statistic.
        """
        axes = [axis for axis in axes if ids.shape[axis] > 1]
        if not axes:
            return ids
        first = ids.max(axis=tuple(axes), keepdims=True)
        units, top = self.of_units(ids), np.maximum(first, 0)
        same = (self.kernel[ids] == self.kernel[top]) & (self.unit[ids] == self.unit[top])
        apart = units & (self.roots(ids) != self.roots(first)) & ~same
        if apart.any() or not units.any():
            return self.new(first.shape) if first.size > 1 else None
        self.unite(np.where(units, ids, NONE), first)
        return np.where(any_over(ids == NONE, axes), NONE, first) if first.size > 1 else None
