"""The structure of a function, as masks, criteria and rates use it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from td._kernel_axes import Kernel
from td.compact.indices import Broadcastable
from td.structure.classes import NONE
from td.structure.state import Tracing


class Structure(NamedTuple):
    """Kernels, their roles, and the units that go together.

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
      inputs: the same of the entries that read a unit.
      scales: the same of the entries that a unit is multiplied by after a statistic of all units was added to it.
      offsets: the same of the entries that are added to a unit, or multiply it.
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
    others: dict[str, str]
    notes: tuple[str, ...]

    @property
    def groups(self) -> dict[int, list[tuple[str, int, list[int]]]]:
        """`{group: [(path, axis, indices)]}` of the entries that make its unit and those that read it."""
        found: dict[int, list[tuple[str, int, list[int]]]] = defaultdict(list)
        for table in (self.units, self.inputs):
            for path, ids in table.items():
                for axis, size in enumerate(ids.shape):
                    if size > 1:
                        lines = np.moveaxis(ids, axis, 0).reshape(size, -1)
                        for group in np.unique(lines[lines >= 0]).tolist():
                            found[group].append((path, axis, np.flatnonzero((lines == group).any(1)).tolist()))
        return dict(sorted(found.items()))

    def __str__(self) -> str:
        from td.structure.table import table

        return table(self)


def build(trace: Tracing, paths: list[str], include: Iterable[str]) -> Structure:
    """Name what a trace has found."""
    lookups = {leaf for name, leaf in trace.tables if name == "column"}
    uses = [use for use in trace.uses if use.leaf not in lookups and use.leaf not in trace.left]
    leaves = sorted({use.leaf for use in uses})
    every = {paths[leaf]: _view(trace, leaf) for leaf in leaves}
    first = tuple(paths[leaf] for leaf in leaves if any(use.fresh for use in uses if use.leaf == leaf))
    last = tuple(paths[leaf] for leaf in leaves if leaf not in trace.followed)
    out = {*(() if "first" in include else first), *(() if "last" in include else last)}
    kernels = {path: view for path, view in every.items() if path not in out}
    writers = {leaf: trace.tables["unit", leaf] for leaf in leaves if ("unit", leaf) in trace.tables}
    writers |= {leaf: trace.tables["column", leaf] for leaf in lookups - trace.left.keys()}
    writers = dict(sorted(writers.items()))
    stays = _staying(trace, writers)
    families, heads, head_groups, number = _families(trace, writers, stays, paths, kernels, every)
    numbered = {name: {} for name in ("input", "scale", "offset")}
    for (name, leaf), ids in trace.tables.items():
        kind = "offset" if name == "scale" and leaf not in trace.reviving else name
        if kind in numbered and (leaf in writers or kind != "input"):
            groups = number(ids)
            if (groups >= 0).any():
                before = numbered[kind].get(paths[leaf])
                numbered[kind][paths[leaf]] = groups if before is None else _either(before, groups)
    return Structure(
        kernels,
        every,
        first,
        last,
        tuple(paths[leaf] for leaf in sorted(lookups)),
        families,
        heads,
        head_groups,
        {paths[leaf]: number(ids) for leaf, ids in writers.items() if (number(ids) >= 0).any()},
        numbered["input"],
        numbered["scale"],
        numbered["offset"],
        _others(trace, paths, every, lookups),
        tuple(dict.fromkeys(trace.notes)),
    )


def _either(one: Broadcastable, other: Broadcastable) -> Broadcastable:
    return np.where(one >= 0, one, other)


def _view(trace: Tracing, leaf: int) -> Kernel:
    uses = [use for use in trace.uses if use.leaf == leaf]
    rank = len(trace.shapes[leaf])
    units = tuple(axis - rank for axis in sorted(uses[0].units))
    return Kernel(tuple(trace.shapes[leaf]), tuple(sorted(uses[0].stacked)), units)


def _staying(trace: Tracing, writers: Mapping[int, Broadcastable]) -> set[int]:
    """Classes of units that the outputs show, that an operation without a rule reads, or whose leaf is left alone."""
    frozen = [np.asarray(list(trace.frozen), int)]
    for (name, leaf), ids in trace.tables.items():
        if name == "unit" and leaf not in writers:
            frozen.append(ids.ravel())
    return set(np.unique(trace.classes.roots(np.concatenate(frozen))).tolist())


def _signatures(trace: Tracing, writers: Mapping[int, Broadcastable]) -> dict[int, list[tuple[int, int, int]]]:
    """`{class: [(leaf, place in its stack, number of columns)]}`."""
    rows = []
    for leaf, ids in writers.items():
        stacked = next((sorted(use.stacked) for use in trace.uses if use.leaf == leaf), [])
        sizes = [n if axis in stacked else 1 for axis, n in enumerate(ids.shape)]
        place = np.broadcast_to(np.arange(int(np.prod(sizes))).reshape(sizes), ids.shape)
        used = ids != NONE
        roots = trace.classes.roots(ids)[used]
        rows.append(np.stack([roots, np.full(roots.shape, leaf), place[used]], 1))
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    if rows:
        unique, counts = np.unique(np.concatenate(rows), axis=0, return_counts=True)
        for (root, leaf, place), count in zip(unique.tolist(), counts.tolist(), strict=True):
            found[root].append((leaf, place, count))
    return found


def _families(
    trace: Tracing,
    writers: Mapping[int, Broadcastable],
    stays: set[int],
    paths: list[str],
    kernels: Mapping[str, Kernel],
    every: Mapping[str, Kernel],
) -> tuple[dict[str, Broadcastable], dict[str, Broadcastable], tuple[tuple[int, ...], ...], Any]:
    """Number the groups that may go, and sort them into rankings."""
    marks: dict[int, set[int]] = defaultdict(set)
    for ids, mark in trace.marks:
        units = trace.classes.of_units(ids)
        pairs = np.unique(np.stack([trace.classes.roots(ids[units]), trace.classes.roots(mark[units])], 1), axis=0)
        for root, one in pairs.tolist():
            marks[root].add(one)
    rankings: dict[tuple[Any, ...], dict[tuple[Any, ...], list[int]]] = defaultdict(lambda: defaultdict(list))
    for root, columns in sorted(_signatures(trace, writers).items()):
        chosen = any(paths[leaf] in kernels for leaf, _, _ in columns)
        if root not in stays and chosen:
            kind = tuple(sorted(Counter({leaf: 0 for leaf, _, _ in columns} | {}).keys()))
            count = tuple(sorted((leaf, count) for leaf, _, count in columns))
            rankings[(kind, count)][
                (tuple(columns and [(leaf, place) for leaf, place, _ in columns]), tuple(sorted(marks[root])))
            ].append(root)
    order = [root for kind in rankings.values() for roots in kind.values() for root in roots]
    places = np.full(len(trace.classes.parent), -1)
    places[order] = np.arange(len(order))

    def number(ids: Broadcastable) -> Broadcastable:
        roots = trace.classes.roots(ids)
        return np.where(roots > 0, places[np.maximum(roots, 0)], -1).astype(np.int32)

    families: dict[str, Broadcastable] = {}
    for (kind, _), lines in rankings.items():
        name = next((paths[leaf] for leaf in kind if paths[leaf] in kernels), paths[kind[0]])
        for length in dict.fromkeys(map(len, lines.values())):
            same = [roots for roots in lines.values() if len(roots) == length]
            families[_unused(name, families)] = places[np.asarray(same)]
    heads, head_groups = _heads(marks, places, rankings, paths, kernels, stays)
    return families, heads, head_groups, number


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    if name not in taken:
        return name
    return next(f"{name} ({i})" for i in range(2, len(taken) + 3) if f"{name} ({i})" not in taken)


def _heads(
    marks: Mapping[int, set[int]],
    places: Broadcastable,
    rankings: Mapping[Any, Mapping[Any, list[int]]],
    paths: list[str],
    kernels: Mapping[str, Kernel],
    stays: set[int],
) -> tuple[dict[str, Broadcastable], tuple[tuple[int, ...], ...]]:
    """Heads: the groups that bear one mark, or marks that a group joins; several kinds of groups each."""
    parent: dict[int, int] = {}

    def top(mark: int) -> int:
        while parent.setdefault(mark, mark) != mark:
            mark = parent[mark]
        return mark

    for own in marks.values():
        for mark in own:
            parent[top(mark)] = top(min(own, key=top))
    members: dict[int, list[int]] = defaultdict(list)
    kinds: dict[int, list[Any]] = defaultdict(list)
    broken = {top(mark) for root, own in marks.items() if root in stays for mark in own}
    for kind, lines in rankings.items():
        for (columns, own), roots in lines.items():
            if own:
                members[top(own[0])] += roots
                kinds[top(own[0])].append((kind[0], len(roots), columns))
    heads: dict[Any, list[int]] = defaultdict(list)
    groups: list[tuple[int, ...]] = []
    for mark, roots in sorted(members.items()):
        if mark not in broken and len(kinds[mark]) > 1:  # query and key, and value: a grouped convolution has one kind
            heads[tuple(sorted(kinds[mark]))].append(len(groups))
            groups.append(tuple(places[sorted(roots)].tolist()))
    named: dict[str, Broadcastable] = {}
    for kind, numbers in heads.items():
        name = next(paths[leaf] for leaves, _, _ in kind for leaf in leaves if paths[leaf] in kernels)
        named[_unused(name, named)] = np.asarray([numbers])
    return named, tuple(groups)


def _others(trace: Tracing, paths: list[str], every: Mapping[str, Kernel], lookups: set[int]) -> dict[str, str]:
    """Say of every other leaf what it is, or why it is left alone."""
    words = {"scale": "a scale", "offset": "an offset", "input": "a vector"}
    found = {}
    for leaf, path in enumerate(paths):
        if leaf in trace.left:
            found[path] = trace.left[leaf]
        elif path not in every and leaf not in lookups:
            kinds = [word for name, word in words.items() if (name, leaf) in trace.tables]
            found[path] = kinds[0] if kinds else "no product with what depends on the inputs"
    return found
