"""The structure of a function, as masks, criteria and rates use it."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from td._kernel_axes import Kernel
from td.compact.indices import Broadcastable
from td.structure.families import families_of
from td.structure.state import OUTPUT, Cost, Tracing
from td.structure.table import table

UNUSED = "meets nothing that depends on the inputs"


class GroupCost(NamedTuple):
    """FLOPs of one product, in proportion to what is left of each factor.

    Attributes:
      path: of its kernel; "" of two values that depend on the inputs.
      flops: multiplications and additions for the example inputs.
      factors: groups that it reads or makes, -1 for what never goes.
    """

    path: str
    flops: int
    factors: tuple[Broadcastable, ...]


class Structure(NamedTuple):
    """Kernels, their roles, and the units that go together, in order of execution.

    Groups are numbered; in tables of entries -1 stands for none.

    Attributes:
      kernels: `{path: view}` of the kernels that methods mask.
      every: `{path: view}` of all kernels, first and last ones included.
      first: paths of the kernels that read the inputs before any other.
      last: paths of the kernels that no other follows.
      embeddings: paths of the leaves that are looked up.
      families: `{name: [rankings, n]}`, the groups that are ranked together.
      heads: `{name: [rankings, n]}`, the same of attention heads.
      head_groups: for every head the groups that it consists of.
      units: `{path: groups}` of the entries that make a unit, an array of the leaf's rank, of size 1 along other axes.
      inputs: the same of the entries that read a unit, and nothing else.
      scales: the same of the entries that a unit is multiplied by after something live was added to it, as its mean.
      offsets: the same of the entries that are added to a unit, or multiply it.
      costs: of all products and convolutions.
      others: `{path: why}` of the leaves that are neither kernels nor embeddings.
      notes: what the trace could not follow.
    """

    kernels: dict[str, Kernel]
    every: dict[str, Kernel]
    first: tuple[str, ...]
    last: tuple[str, ...]
    embeddings: tuple[str, ...]
    families: dict[str, Broadcastable]
    heads: dict[str, Broadcastable]
    head_groups: tuple[tuple[int, ...], ...]
    units: dict[str, Broadcastable]
    inputs: dict[str, Broadcastable]
    scales: dict[str, Broadcastable]
    offsets: dict[str, Broadcastable]
    costs: tuple[GroupCost, ...]
    others: dict[str, str]
    notes: tuple[str, ...]

    @property
    def groups(self) -> dict[int, list[tuple[str, int, list[int]]]]:
        """Entries that make or read the unit of each group.

        A map `{group: [(path, axis, indices)]}`.
        """
        found: dict[int, list[tuple[str, int, list[int]]]] = defaultdict(list)
        for entries in (self.units, self.inputs):
            for path, ids in entries.items():
                for axis, size in enumerate(ids.shape):
                    if size > 1:
                        lines = np.moveaxis(ids, axis, 0).reshape(size, -1)
                        for group in np.unique(lines[lines >= 0]).tolist():
                            found[group].append((path, axis, np.flatnonzero((lines == group).any(1)).tolist()))
        return dict(sorted(found.items()))

    def __str__(self) -> str:
        return table(self)


def build(trace: Tracing, paths: Sequence[str], include: Collection[str]) -> Structure:
    """Name what a trace has found."""
    writers = {
        leaf: ids for (kind, leaf), ids in trace.tables.items() if kind in ("unit", "column") and leaf not in trace.left
    }
    lookups = [leaf for leaf in writers if ("column", leaf) in trace.tables]
    writers |= {leaf: trace.tables["column", leaf] for leaf in lookups}
    leaves = [leaf for leaf in writers if leaf not in lookups]
    every = {leaf: _view(trace, leaf) for leaf in leaves}
    fresh = {use.leaf for use in trace.uses if use.fresh}
    first = [leaf for leaf in leaves if leaf in fresh]
    last = [leaf for leaf in leaves if leaf not in trace.followed]
    out = {*([] if "first" in include else first), *([] if "last" in include else last)}
    rest = [leaf for leaf in range(len(paths)) if leaf not in writers]
    masked = [leaf for leaf in leaves if leaf not in out]
    stays = _staying(trace, writers)
    families, heads, head_groups, number = families_of(trace, writers, stays, paths, masked)
    tables: dict[str, dict[str, Broadcastable]] = {kind: {} for kind in ("unit", "input", "revived", "offset")}
    for kind, leaf, ids in [*(("unit", leaf, ids) for leaf, ids in writers.items()), *_members(trace, writers)]:
        groups, before = number(ids), tables[kind].get(paths[leaf], np.int32(-1))
        if (groups >= 0).any():
            tables[kind][paths[leaf]] = np.where(groups >= 0, groups, before)
    return Structure(
        {paths[leaf]: every[leaf] for leaf in masked},
        {paths[leaf]: view for leaf, view in every.items()},
        tuple(paths[leaf] for leaf in first),
        tuple(paths[leaf] for leaf in last),
        tuple(paths[leaf] for leaf in lookups),
        families,
        heads,
        head_groups,
        tables["unit"],
        tables["input"],
        tables["revived"],
        tables["offset"],
        tuple(_cost(cost, paths, number) for cost in trace.costs),
        {paths[leaf]: trace.left.get(leaf, trace.words.get(leaf, UNUSED)) for leaf in rest},
        _notes(trace, paths, {*masked, *lookups}),
    )


def _cost(cost: Cost, paths: Sequence[str], number: Callable[[Broadcastable], Broadcastable]) -> GroupCost:
    path = "" if cost.leaf is None else paths[cost.leaf]
    return GroupCost(path, cost.flops, tuple(number(ids) for ids in cost.factors))


def _view(trace: Tracing, leaf: int) -> Kernel:
    shape = tuple(trace.shapes[leaf])
    use = next(use for use in trace.uses if use.leaf == leaf)
    return Kernel(shape, tuple(sorted(use.stacked)), tuple(axis - len(shape) for axis in sorted(use.units)))


def _members(trace: Tracing, writers: Mapping[int, Broadcastable]) -> list[tuple[str, int, Broadcastable]]:
    """Entries that read a unit, scale it or are added to it."""
    found = []
    for (kind, leaf), ids in trace.tables.items():
        if kind == "input" and leaf not in trace.left:
            found.append((kind, leaf, ids))
        elif kind in ("scale", "offset"):
            revives = kind == "scale" and leaf in trace.reviving
            found.append(("revived" if revives else "offset", leaf, ids))
    return found


def _staying(trace: Tracing, writers: Mapping[int, Broadcastable]) -> Broadcastable:
    """True for classes of units that an output or an operation without a rule reads, or of a leaf left alone."""
    kept = [ids for each in trace.stays.values() for ids in each]
    kept += [ids.ravel() for (kind, leaf), ids in trace.tables.items() if kind == "unit" and leaf not in writers]
    stays = np.zeros(trace.classes.count, bool)
    stays[trace.classes.roots(np.concatenate([np.zeros(1, int), *kept]))] = True
    return stays


def _notes(trace: Tracing, paths: Sequence[str], masked: Collection[int]) -> tuple[str, ...]:
    """Say which units of masked kernels stay, and why."""
    notes = []
    for why, kept in trace.stays.items():
        ids = np.unique(np.concatenate(kept))
        leaves = trace.classes.kernel[ids]
        names = [paths[leaf] for leaf in masked if leaf in leaves]
        if names and why != OUTPUT:
            notes.append(f"{np.isin(leaves, [*masked]).sum()} units of {', '.join(names)} stay: {why}")
    return tuple(notes)
