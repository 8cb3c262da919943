"""Groups that are ranked together, and heads."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from td.compact.indices import Broadcastable
from td.structure.classes import NONE
from td.structure.state import Tracing

Columns = tuple[tuple[int, int, int], ...]
"""A group's columns: leaf, place in its stack, number."""


class Ranking(NamedTuple):
    """Groups with columns in the same kernels, in the same head.

    Attributes:
      columns: of each.
      marks: heads and groups of a convolution that they lie in.
      roots: their classes.
    """

    columns: Columns
    marks: tuple[int, ...]
    roots: list[int]

    @property
    def counts(self) -> tuple[tuple[int, int], ...]:
        """Leaves and numbers of columns, alike in all layers of a stack."""
        return tuple(sorted((leaf, count) for leaf, _, count in self.columns))


class Families(NamedTuple):
    """Rankings of one kind, by name, and heads.

    Attributes:
      families: `{name: [rankings, n]}`, numbers of groups.
      heads: `{name: [1, n]}`, numbers of heads.
      head_groups: of every head.
      number: ids of units to numbers of groups, -1 for none.
    """

    families: dict[str, Broadcastable]
    heads: dict[str, Broadcastable]
    head_groups: tuple[tuple[int, ...], ...]
    number: Callable[[Broadcastable], Broadcastable]


def families_of(
    trace: Tracing,
    writers: Mapping[int, Broadcastable],
    stays: Collection[int],
    paths: Sequence[str],
    masked: Collection[int],
) -> Families:
    """Number the groups that have a column of a masked kernel and do not stay, and sort them into rankings."""
    marks = _marks(trace)
    rankings = _rankings(_columns(trace, writers), marks, stays, masked)
    names = {leaf: place for place, leaf in enumerate(writers)}  # in order of execution

    def name_of(leaves: Collection[int], taken: Mapping[str, Broadcastable]) -> str:
        name = paths[min((leaf for leaf in leaves if leaf in masked), key=names.__getitem__)]
        numbered = (f"{name} ({i})" for i in range(2, len(taken) + 3))
        return next(each for each in (name, *numbered) if each not in taken)

    kinds: dict[tuple[object, int], list[Ranking]] = defaultdict(list)
    for ranking in rankings:
        kinds[ranking.counts, len(ranking.roots)].append(ranking)
    places = np.full(len(trace.classes.parent), -1, np.int32)
    families: dict[str, Broadcastable] = {}
    count = 0
    for (_, width), same in kinds.items():
        numbers = np.arange(count, count + len(same) * width).reshape(len(same), width)
        places[[ranking.roots for ranking in same]] = numbers
        families[name_of({leaf for leaf, _, _ in same[0].columns}, families)] = numbers
        count += numbers.size
    heads: dict[str, Broadcastable] = {}
    groups: list[tuple[int, ...]] = []
    for layers in _heads(rankings, marks, stays):
        leaves = {leaf for ranking in layers[0][0] for leaf, _, _ in ranking.columns}
        first, size = len(groups), len(layers) * len(layers[0])
        heads[name_of(leaves, heads)] = np.arange(first, first + size).reshape(len(layers), -1)
        groups += [tuple(sorted(places[r] for one in head for r in one.roots)) for layer in layers for head in layer]

    def number(ids: Broadcastable) -> Broadcastable:
        return np.where(ids > 0, places[np.maximum(trace.classes.roots(ids), 0)], -1).astype(np.int32)

    return Families(families, heads, tuple(tuple(map(int, head)) for head in groups), number)


def _columns(trace: Tracing, writers: Mapping[int, Broadcastable]) -> dict[int, Columns]:
    """The columns of every class."""
    rows = [np.zeros((0, 3), int)]
    stacked = {use.leaf: use.stacked for use in trace.uses}
    for leaf, ids in writers.items():
        sizes = [n if axis in stacked.get(leaf, ()) else 1 for axis, n in enumerate(ids.shape)]
        place = np.broadcast_to(np.arange(int(np.prod(sizes))).reshape(sizes), ids.shape)[ids != NONE]
        rows.append(np.stack([trace.classes.roots(ids[ids != NONE]), np.full(place.shape, leaf), place], 1))
    unique, counts = np.unique(np.concatenate(rows), axis=0, return_counts=True)
    found: dict[int, Columns] = defaultdict(tuple)
    for (root, leaf, place), count in zip(unique.tolist(), counts.tolist(), strict=True):
        found[root] += ((leaf, place, count),)
    return found


def _marks(trace: Tracing) -> dict[int, set[int]]:
    """The marks of every class."""
    found: dict[int, set[int]] = defaultdict(set)
    for ids, mark in trace.marks:
        units = trace.classes.of_units(ids)
        pairs = np.stack([trace.classes.roots(ids[units]), trace.classes.roots(mark[units])], 1)
        for root, one in np.unique(pairs, axis=0).tolist():
            found[root].add(one)
    return found


def _rankings(
    columns: Mapping[int, Columns], marks: Mapping[int, set[int]], stays: Collection[int], masked: Collection[int]
) -> list[Ranking]:
    found: dict[object, Ranking] = {}
    for root, own in sorted(columns.items()):
        if root not in stays and any(leaf in masked for leaf, _, _ in own):
            inside = tuple(sorted(marks.get(root, ())))
            found.setdefault((own, inside), Ranking(own, inside, [])).roots.append(root)
    return list(found.values())


def _heads(
    rankings: Sequence[Ranking], marks: Mapping[int, set[int]], stays: Collection[int]
) -> list[list[list[list[Ranking]]]]:
    """Heads by kind and by layer: the rankings that a mark, or marks that share a group, hold together."""
    parent: dict[int, int] = {}

    def top(mark: int) -> int:
        while parent.setdefault(mark, mark) != mark:
            mark = parent[mark]
        return mark

    for own in marks.values():
        for mark in own:
            parent[top(mark)] = top(min(own))
    broken = {top(mark) for root, own in marks.items() if root in stays for mark in own}
    heads: dict[int, list[Ranking]] = defaultdict(list)
    for ranking in rankings:
        if ranking.marks and top(ranking.marks[0]) not in broken:
            heads[top(ranking.marks[0])].append(ranking)
    kinds: dict[object, dict[object, list[list[Ranking]]]] = defaultdict(lambda: defaultdict(list))
    for head in heads.values():
        if len(head) > 1:  # query with key, and value: a group of a convolution has one
            kind = tuple(sorted((ranking.counts, len(ranking.roots)) for ranking in head))
            kinds[kind][tuple(sorted(ranking.columns for ranking in head))].append(head)
    found = []
    for layers in map(list, map(dict.values, kinds.values())):
        ragged = len({len(layer) for layer in layers}) > 1 or len(layers[0]) == 1  # a stack of heads, not of layers
        found.append([[head for layer in layers for head in layer]] if ragged else layers)
    return found
