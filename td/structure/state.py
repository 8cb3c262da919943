"""State of a trace: what is known so far of leaves, units and their classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import source_info_util

from td.compact.indices import Broadcastable, Shape
from td.structure.classes import ANY, NONE, Classes
from td.structure.values import Known, Live, entries, leaf_axes, varying

Value = Known | Live


class Op(NamedTuple):
    """An equation with its shapes.

    Attributes:
      name: of the primitive.
      equation: as JAX traced it.
      shapes: of the operands.
      shape: of the first output.
    """

    name: str
    equation: Any
    shapes: tuple[Shape, ...]
    shape: Shape

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params

    @property
    def where(self) -> str:
        """The primitive and the line of the user's source."""
        return f"{self.name} at {source_info_util.summarize(self.equation.source_info)}"


class Use(NamedTuple):
    """A product of a leaf with something that depends on the inputs.

    Attributes:
      leaf: its number.
      stacked: axes along which independent kernels lie.
      fan_in: contracted axes.
      units: free axes.
      fresh: its input has passed no other kernel.
    """

    leaf: int
    stacked: frozenset[int]
    fan_in: frozenset[int]
    units: frozenset[int]
    fresh: bool


class Tracing:
    """What a run finds, by leaf."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.shapes = shapes
        self.classes = Classes()
        self.uses: list[Use] = []
        self.tables: dict[tuple[str, int], Broadcastable] = {}  # ids of entries: unit, input, column, scale, offset
        self.followed: set[int] = set()
        self.marks: list[tuple[Broadcastable, Broadcastable]] = []  # within which head or group the ids are ranked
        self.frozen: dict[int, str] = {}  # id -> why
        self.left: dict[int, str] = {}  # leaf -> why it is not followed
        self.reviving: set[int] = set()  # leaves that scale what a statistic of all units was added to
        self.notes: list[str] = []

    def opaque(self, op: Op, values: Sequence[Value]) -> Live:
        """The output of an operation without a rule: the units that it reads stay, and its leaves are left alone."""
        for value in values:
            if isinstance(value, Live):
                for ids in value.labels:
                    self.freeze(ids, op.where)
            elif value.leaf is not None:
                self.left.setdefault(value.leaf, f"used by {op.where}")
        return joined_live(values)

    def freeze(self, ids: Broadcastable, why: str) -> None:
        """Keep units for good."""
        units = np.unique(ids[self.classes.of_units(ids)])
        if len(units) and why != "output":
            self.notes.append(f"{len(units)} units of width stay: {why}")
        for each in units.tolist():
            self.frozen.setdefault(each, why)

    def write(self, table: str, known: Known, axes: Sequence[int], shape: Shape, ids: Broadcastable) -> None:
        """Note the ids of a leaf's entries, `ids` on the grid of some axes of an arrangement of it."""
        found = self._entries(known, axes, shape)
        if found is None or known.leaf is None:
            return
        place, ids = found, np.broadcast_to(ids, [shape[axis] for axis in axes])
        entry = self._table(table, known.leaf, place)
        before = entry[tuple(place)]
        self.classes.unite(before, ids)
        entry[tuple(place)] = np.where(before > 0, before, ids)

    def read(self, table: str, known: Known, axes: Sequence[int], shape: Shape) -> Broadcastable | None:
        """Look up ids that `write` has noted; None where the axes split one of the leaf's."""
        place = self._entries(known, axes, shape)
        if place is None or known.leaf is None:
            return None
        return self._table(table, known.leaf, place)[tuple(place)]

    def _entries(self, known: Known, axes: Sequence[int], shape: Shape) -> list[Broadcastable] | None:
        if known.leaf is None:
            return None
        place = entries(known, axes, shape, self.shapes[known.leaf])
        if place is None:
            return None
        rest = leaf_axes(known, [axis for axis in range(len(shape)) if axis not in axes], self.shapes[known.leaf])
        return [line if axis not in rest else np.zeros_like(line) for axis, line in enumerate(place)]

    def _table(self, name: str, leaf: int, place: Sequence[Broadcastable]) -> Broadcastable:
        """A table with room for some entries: of size 1 along axes that no entry needs."""
        table = self.tables.get((name, leaf), np.full((1,) * len(place), NONE))
        room = [
            max(size, whole if (line > 0).any() else 1)
            for size, whole, line in zip(table.shape, self.shapes[leaf], place, strict=True)
        ]
        if room != list(table.shape):
            grown = np.full(room, NONE)
            grown[...] = table if table.any() else NONE
            self.tables[name, leaf] = table = grown
        return self.tables.setdefault((name, leaf), table)


def joined_live(values: Sequence[Value], fresh: bool | None = None) -> Live:
    """A live value without labels, of what reaches the operands."""
    live = [value for value in values if isinstance(value, Live)]
    return Live((), frozenset().union(*(v.kernels for v in live)), all(v.fresh for v in live), False)


def merged(
    trace: Tracing, labels: list[Broadcastable], others: Sequence[Broadcastable], adds: bool
) -> list[Broadcastable]:
    """Labels of two operands, those that vary along the same axes joined."""
    rest = list(others)
    merged = []
    for ids in labels:
        for other in [other for other in rest if set(varying(other)) & set(varying(ids))]:
            rest = [each for each in rest if each is not other]
            ids = joined(trace, ids, other, adds)
        merged.append(ids)
    return merged + rest


def joined(trace: Tracing, one: Broadcastable, other: Broadcastable, adds: bool) -> Broadcastable:
    """Unite units with units; a unit to which a statistic is added that tells units apart is no unit of its own."""
    classes = trace.classes
    one, other = np.broadcast_arrays(one, other)
    units, vectors = [classes.of_units(ids) for ids in (one, other)], [classes.of_vectors(ids) for ids in (one, other)]
    classes.unite(np.where(units[0], one, NONE), np.where(units[1], other, NONE))
    first = units[0] | ((one > 0) & ~units[1]) | ((other <= 0) & (one != ANY))
    result = np.where(first, one, other)
    for own, theirs, mine, kind in (
        (one, other, units[0] & ~units[1], vectors[1]),
        (other, one, units[1] & ~units[0], vectors[0]),
    ):
        for mixed in (mine & (theirs > 0) & kind, mine & (theirs > 0) & ~kind):
            if mixed.any() and len(np.unique(theirs[mixed])) >= len(np.unique(classes.roots(own[mixed]))):
                if (mixed & kind).any():
                    classes.unite(np.where(mixed, own, NONE), theirs)
                elif adds:
                    result = np.where(mixed, theirs, result)
    return classes.settled(result)
