"""Equations of the trace with their shapes, and values: known entries of a leaf, live units along their axes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import source_info_util

from td.program.indices import Broadcastable, Shape, on_axes, others

Ids = Broadcastable
Labels = Sequence[Ids]
Axes = Sequence[Any]


class Op(NamedTuple):
    """An equation with its shapes."""

    name: str  # of the primitive
    equations: tuple[Any, ...]  # the calls that it lies in, and itself, as JAX traced them
    params: dict[str, Any]  # of the primitive
    shapes: tuple[Shape, ...]  # of the operands
    shape: Shape  # of the first output

    @property
    def where(self) -> str:
        """The primitive and the line of the user's source."""
        places = (source_info_util.summarize(equation.source_info) for equation in reversed(self.equations))
        return " at ".join([self.name, *[place for place in places if place][:1]])


def resized(shape: Shape, axis: int, size: int) -> tuple[int, ...]:
    """A shape with another size of one axis."""
    return tuple(size if a == axis else n for a, n in enumerate(shape))


class Known(NamedTuple):
    """A value that depends on no input; entry `[i, j]` is entry `start + vectors[0][i] + vectors[1][j]` of the leaf."""

    leaf: Any = None  # the number of the leaf that it is an arrangement of, up to scaling and casts
    start: int = 0
    vectors: tuple[Ids, ...] = ()  # one an axis, from 0 on; of size 1 along axes without differences
    number: Any = None  # whole numbers that the function computes from its own constants
    zero: bool = True  # it is zero where these entries are
    added: tuple["Known", ...] = ()  # other arrangements that were added to it, such as its mean
    mixed: frozenset[int] = frozenset()  # other leaves that it depends on
    pieces: tuple["Known", ...] = ()  # values that are concatenated to it
    sizes: tuple[int, ...] = ()  # of the pieces
    axis: int = 0  # of the concatenation

    @property
    def leaves(self) -> frozenset[int]:
        """All leaves that it depends on."""
        return self.mixed if self.leaf is None else self.mixed | {self.leaf}

    @property
    def across(self) -> list[int]:
        """The axes along which it takes different entries."""
        return [axis for axis, vector in enumerate(self.vectors) if vector.size > 1]

    def dies_along(self, axes: Axes) -> bool:
        """Test that a slice of some axes is zero where its entries of the leaf are."""
        same = (np.array_equal(np.diff(v.vectors[a]), np.diff(self.vectors[a])) for v in self.added for a in axes)
        return self.zero and all(v.leaf == self.leaf for v in self.added) and all(same)


class Live(NamedTuple):
    """A value that depends on the inputs; its labels vary along different axes, and have size 1 along all others."""

    labels: tuple[Ids, ...] = ()  # ids of units, arrays of the value's rank
    kernels: frozenset[int] = frozenset()  # those whose outputs reach it through no other kernel
    fresh: bool = False  # no kernel lies between the inputs and it
    revived: bool = False  # something live was added to its units, which a dead one shows

    def with_labels(self, labels: Labels) -> "Live":
        """The value with other labels; those that tell no entries apart are dropped."""
        return self._replace(labels=tuple(ids for ids in labels if ids.size > 1 and (ids > 0).any()))


Value = Known | Live


def of_leaf(leaf: int, shape: Shape) -> Known:
    """A leaf itself."""
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return Known(leaf, 0, tuple(np.arange(size) * step for size, step in zip(shape, steps, strict=True)))


def joined_live(values: Sequence[Value]) -> Live:
    """A live value without labels, of what reaches the operands."""
    live = [value for value in values if isinstance(value, Live)]
    kernels = frozenset[int]().union(*(value.kernels for value in live))
    return Live((), kernels, all(value.fresh for value in live), any(value.revived for value in live))


def meet(one: Ids, other: Ids) -> bool:
    """Test for an axis along which both differ."""
    return any(n > 1 and m > 1 for n, m in zip(one.shape, other.shape, strict=True))


def varying(ids: Ids) -> list[int]:
    """The axes along which entries differ."""
    return [axis for axis, size in enumerate(ids.shape) if size > 1]


def on_grid(ids: Ids, axes: Axes) -> Ids:
    """An array of some axes alone, in the order given; all others have size 1."""
    return on_axes(ids, {axis: place for place, axis in enumerate(axes)}, len(axes))


def entries(known: Known, axes: Axes, shape: Shape, leaf_shape: Shape) -> tuple[list[Ids], set[int]] | None:
    """The leaf's coordinates on the grid of some axes of a value, and the leaf's axes along which all others run."""
    inside = np.asarray(known.start)
    for axis in axes:
        inside = inside[..., None] + np.broadcast_to(known.vectors[axis], (shape[axis],))
    coordinates = [np.asarray(line) for line in np.unravel_index(inside, leaf_shape)]
    rest = leaf_axes(known, others(len(shape), *axes), leaf_shape)
    split = any((coordinates[axis] != coordinates[axis].ravel()[0]).any() for axis in rest)
    return None if split else (coordinates, rest)  # where one of them lies along both, it is split


def leaf_axes(known: Known, axes: Axes, leaf_shape: Shape) -> set[int]:
    """The leaf's axes along which some axes of a value run."""
    found: set[int] = set()
    for axis in axes:
        lines = np.unravel_index(known.start + known.vectors[axis], leaf_shape)
        found |= {place for place, line in enumerate(lines) if (line != line[0]).any()}
    return found
