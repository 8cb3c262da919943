"""State of a trace: what is known so far of leaves, units and their classes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from td.program.flops import flops_of
from td.program.indices import Shape
from td.structure.classes import NONE, Classes
from td.structure.values import Axes, Ids, Known, Labels, Live, Op, Value, entries, joined_live, leaf_axes, on_grid

OUTPUT = "output"
"""Why the units that the outputs show stay."""


class Use(NamedTuple):
    """A product of a leaf with something that depends on the inputs, by axes of the leaf."""

    stacked: frozenset[int]  # independent kernels lie along them
    units: frozenset[int]  # free, all others are contracted
    fresh: bool  # an input of it has passed no other kernel


class Cost(NamedTuple):
    """FLOPs of one product, in proportion to what is left of each factor."""

    path: Any  # of its kernel, whose number during the trace; "" or None of two live values
    flops: int  # multiplications and additions for the example inputs
    factors: tuple[Ids, ...]  # units that it reads or makes; then their groups, -1 for what never goes


class Tracing(Classes):
    """Findings of a run, by leaf and by id."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.shapes = shapes  # of the leaves
        self.uses: dict[int, Use] = {}  # of kernels, in order
        self.costs: list[Cost] = []
        self.tables: dict[tuple[str, int], Ids] = {}  # ids by leaf and "unit", "input", "column", "scale" ...
        self.followed: set[int] = set()  # kernels that another one follows
        self.marks: list[tuple[Ids, Ids]] = []  # ids of units, of the head that they are ranked in
        self.stays: dict[str, list[Ids]] = defaultdict(list)  # units that stay, by the reason
        self.left: dict[int, str] = {}  # why a leaf is not followed
        self.words: dict[int, str] = {}  # what a leaf that is neither a kernel nor an embedding is
        self.reviving: set[int] = set()  # leaves that scale what something live was added to
        self.calls: list[Any] = []  # equations of the calls that the run is in

    def use(self, op: Op, known: Known, sides: Sequence[Axes], live: Live) -> bool:
        """Note stacked, contracted and free axes of a leaf; False where they are split or used otherwise elsewhere."""
        leaf, shape = known.leaf, self.shapes[known.leaf]
        own, inner, units = (leaf_axes(known, axes, shape) for axes in sides)
        own |= {axis for axis, size in enumerate(shape) if size > 1} - inner - units  # one slice of a stack
        units = units or set([axis for axis, size in enumerate(shape) if size == 1][-1:])
        earlier = self.uses.get(leaf, Use(frozenset(own), frozenset(units), False))
        if own & inner or own & units or inner & units or not units:
            self.left.setdefault(leaf, f"an axis is both fan-in and units in {op.where}")
        elif ("column", leaf) not in self.tables and (earlier.units, earlier.stacked) != (units, own):
            self.left.setdefault(leaf, f"its units lie along other axes in {op.where}")
        else:
            self.uses[leaf] = earlier._replace(fresh=earlier.fresh or live.fresh)
            return True
        return False

    def leaf_units(self, op: Op, known: Known, axes: Axes, batch: int, shape: Shape, kind: str = "unit") -> Ids:
        """The ids of a leaf's units on the grid of its batch and free axes, the same at every use."""
        found = self.read(kind, known, axes, shape)
        if found is None or not (found > 0).all():
            sizes = [shape[axis] for axis in axes]
            place = entries(known, axes, shape, self.shapes[known.leaf])
            if place is not None and not batch:
                unit: Any = np.ravel_multi_index(place[0], self.shapes[known.leaf])
            else:  # one number for a unit of all slices of a stack
                unit = np.arange(int(np.prod(sizes[batch:], dtype=int))).reshape([1] * batch + sizes[batch:])
            fresh = self.new(sizes, known.leaf, np.broadcast_to(unit, sizes))
            self.write(kind, known, axes, shape, fresh)
            found = self.read(kind, known, axes, shape)
            found = fresh if found is None else found
        if not known.dies_along(axes):
            self.freeze(found, f"something else is added to the kernel of {op.where}")
        return found

    def count(self, op: Op, leaf: int | None, factors: Labels) -> None:
        """Note the cost of a product."""
        units = tuple(self.units_of(ids) for ids in factors if self.has_units([ids]))
        self.costs.append(Cost(leaf, flops_of(op.name, op.params, op.shapes, op.shape), units))

    def opaque(self, op: Op, values: Sequence[Value]) -> Live:
        """The output of an operation without a rule: the units that it reads stay, and its leaves are unchanged."""
        for value in values:
            for ids in value.labels if isinstance(value, Live) else ():
                self.freeze(ids, op.where)
            for leaf in value.leaves if isinstance(value, Known) else ():
                self.left.setdefault(leaf, f"used by {op.where}")
        return joined_live(values)._replace(revived=False)

    def freeze(self, ids: Ids, why: str) -> None:
        """Keep units."""
        if len(units := np.unique(ids[self.of_units(ids)])):
            self.stays[why].append(units)

    def mark(self, ids: Ids, heads: Ids) -> None:
        """Note in which head units lie, both on one grid."""
        units = self.of_units(ids)
        self.marks.append((ids[units], heads[units]))

    def units_of(self, ids: Ids) -> Ids:
        """The ids of units; NONE for those of statistics, scales and offsets."""
        return np.where(self.of_units(ids), ids, NONE)

    def united(self, ids: Ids, axes: Axes) -> Ids:
        """Units on the grid of some axes: what lies along the others is one class, if all are units."""
        ids, rest = self.units_of(ids), tuple(axis for axis in range(ids.ndim) if axis not in axes)
        first, partly = ids.max(axis=rest, keepdims=True), (ids == NONE).any(axis=rest, keepdims=True)
        self.unite(ids, first)
        return on_grid(np.where(partly, NONE, first), axes)

    def write(self, kind: str, known: Known, axes: Axes, shape: Shape, ids: Ids) -> None:
        """Note the ids of a leaf's entries, `ids` on the grid of some axes of an arrangement of it."""
        found = self._place(kind, known, axes, shape)
        if found is not None:
            table, place = found
            before = table[place]
            self.unite(before, ids)
            table[place] = np.where(before > 0, before, ids)

    def read(self, kind: str, known: Known, axes: Axes, shape: Shape) -> Ids | None:
        """Look up ids that `write` has noted; None where the axes split one of the leaf's."""
        found = self._place(kind, known, axes, shape)
        return None if found is None else found[0][found[1]]

    def _place(self, kind: str, known: Known, axes: Axes, shape: Shape) -> tuple[Ids, tuple[Ids, ...]] | None:
        """A leaf's table, of size 1 along axes that need no more, and a grid's coordinates in it."""
        whole = self.shapes[known.leaf]
        found = entries(known, axes, shape, whole)
        if found is None:
            return None
        coordinates, rest = found
        table = self.tables.setdefault((kind, known.leaf), np.full((1,) * len(whole), NONE))
        room = [size if axis in rest else n for axis, (size, n) in enumerate(zip(table.shape, whole, strict=True))]
        if room != list(table.shape):
            self.tables[kind, known.leaf] = table = np.broadcast_to(table, room).copy()
        return table, tuple(np.minimum(line, n - 1) for line, n in zip(coordinates, table.shape, strict=True))
