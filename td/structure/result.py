"""The structure of a function, as masks, criteria and rates use it, and as a table."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from td._kernel_axes import Kernel
from td.program.indices import Shape
from td.structure.families import families_of
from td.structure.state import OUTPUT, Cost, Tracing, Use
from td.structure.values import Ids


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
    families: dict[str, Ids]
    heads: dict[str, Ids]
    head_groups: tuple[tuple[int, ...], ...]
    units: dict[str, Ids]
    inputs: dict[str, Ids]
    scales: dict[str, Ids]
    offsets: dict[str, Ids]
    costs: tuple[Cost, ...]
    others: dict[str, str]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of groups."""
        return sum(numbers.size for numbers in self.families.values())

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
        """Kernels with their roles, groups with what makes and reads them, and the leaves that are neither."""
        kernels = [("kernel", "shape", "fan-in -> units", "role")]
        for path, view in self.every.items():
            roles = [role for role in ("first", "last") if path in getattr(self, role)]
            roles += [] if path in self.kernels else ["not masked"]
            kernels.append((path, str(list(view.shape)), str(view), ", ".join(roles)))
        kernels += [(path, "", "", "embedding") for path in self.embeddings]
        groups = [("groups", "rankings x width", "made by", "read by")]
        for name, numbers in self.families.items():
            made, read = (_paths_of(entries, numbers) for entries in (self.units, self.inputs))
            groups.append((name, " x ".join(map(str, numbers.shape)), _listed(made), _listed(read)))
        for name, numbers in self.heads.items():
            size = len(self.head_groups[numbers.flat[0]])
            groups.append((f"heads of {name}", " x ".join(map(str, numbers.shape)), f"{size} groups each", ""))
        blocks = [_aligned(kernels), _aligned(groups), _others(self), self.notes]
        return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def build(trace: Tracing, paths: Sequence[str], include: Collection[str]) -> Structure:
    """Name what a trace has found."""
    made = [(leaf, ids) for (kind, leaf), ids in trace.tables.items() if kind in ("unit", "column")]
    writers = {leaf: trace.tables.get(("column", leaf), ids) for leaf, ids in made if leaf not in trace.left}
    lookups = [leaf for leaf in writers if ("column", leaf) in trace.tables]
    leaves = [leaf for leaf in writers if leaf not in lookups]
    every = {leaf: _view(trace.shapes[leaf], trace.uses[leaf]) for leaf in leaves}
    first = [leaf for leaf in leaves if trace.uses[leaf].fresh]
    last = [leaf for leaf in leaves if leaf not in trace.followed]
    left_out = {*([] if "first" in include else first), *([] if "last" in include else last)}
    masked = [leaf for leaf in leaves if leaf not in left_out]
    rest = [leaf for leaf in range(len(paths)) if leaf not in writers]
    unused = "meets nothing that depends on the inputs"
    stays = _staying(trace, writers)
    families, heads, head_groups, number = families_of(trace, writers, stays, paths, masked)
    tables: dict[str, dict[str, Ids]] = {kind: {} for kind in ("unit", "input", "revived", "offset")}
    for (kind, leaf), ids in trace.tables.items():
        if kind in ("scale", "offset"):
            kind = "revived" if kind == "scale" and leaf in trace.reviving else "offset"
        elif leaf in trace.left or (kind == "unit" and leaf in lookups):
            continue
        kind = "unit" if kind == "column" else kind
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
        tuple(
            Cost(paths[cost.path] if cost.path is not None else "", cost.flops, tuple(map(number, cost.factors)))
            for cost in trace.costs
        ),
        {paths[leaf]: trace.left.get(leaf, trace.words.get(leaf, unused)) for leaf in rest},
        _notes(trace, paths, {*masked, *lookups}),
    )


def _view(shape: Shape, use: Use) -> Kernel:
    return Kernel(tuple(shape), tuple(sorted(use.stacked)), tuple(axis - len(shape) for axis in sorted(use.units)))


def _staying(trace: Tracing, writers: Mapping[int, Ids]) -> Ids:
    """True for classes of units that an output or an operation without a rule reads, or of an unchanged leaf."""
    kept = [ids for each in trace.stays.values() for ids in each]
    kept += [ids.ravel() for (kind, leaf), ids in trace.tables.items() if kind == "unit" and leaf not in writers]
    stays = np.zeros(trace.size, bool)
    stays[trace.roots(np.concatenate([np.zeros(1, int), *kept]))] = True
    return stays


def _notes(trace: Tracing, paths: Sequence[str], masked: Collection[int]) -> tuple[str, ...]:
    """Say which units of masked kernels stay, and why."""
    notes = []
    for why, kept in trace.stays.items():
        ids = np.unique(np.concatenate(kept))
        leaves = trace.kernel[ids]
        names = [paths[leaf] for leaf in masked if leaf in leaves]
        if names and why != OUTPUT:
            notes.append(f"{np.isin(leaves, [*masked]).sum()} units of {', '.join(names)} stay: {why}")
    return tuple(notes)


SHOWN = 3
"""Paths of a list that are printed."""


def _others(structure: Structure) -> list[str]:
    """Leaves that are neither kernels nor embeddings, those of a kind on one line."""
    kinds: dict[str, list[str]] = {}
    for path, why in structure.others.items():
        grouped = path in structure.scales or path in structure.offsets
        kinds.setdefault("a scale or an offset of a group" if grouped else why, []).append(path)
    return [f"{_listed(paths)}: {why}" for why, paths in kinds.items()]


def _paths_of(tables: Mapping[str, Any], numbers: Any) -> list[str]:
    return [path for path, ids in tables.items() if np.isin(numbers, ids).any()]


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths) if len(paths) <= SHOWN + 1 else f"{', '.join(paths[:SHOWN])} and {len(paths) - SHOWN} more"


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    if len(lines) == 1:
        return []
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return ["  ".join([*map(str.ljust, line, widths), line[3]]).rstrip() for line in lines]
