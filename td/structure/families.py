"""Groups that are ranked together, and heads."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from td.structure.classes import NONE
from td.structure.state import Tracing
from td.structure.values import Ids


class Ranking(NamedTuple):
    """Groups with columns in the same kernels, in the same head."""

    columns: tuple[tuple[int, int, int], ...]  # of each group: leaf, place in its stack, number
    marks: tuple[int, ...]  # heads and groups of a convolution that they lie in
    roots: Ids  # their classes

    @property
    def kind(self) -> tuple[object, int]:
        """Leaves with numbers of columns, and how many groups: alike in all layers of a stack."""
        return tuple(sorted((leaf, count) for leaf, _, count in self.columns)), len(self.roots)


def families_of(
    trace: Tracing, writers: Mapping[int, Ids], stays: Ids, paths: Sequence[str], masked: Collection[int]
) -> tuple[dict[str, Ids], dict[str, Ids], tuple[tuple[int, ...], ...], Callable[[Ids], Ids]]:
    """Number the groups that have a column of a masked kernel and do not stay, and sort them into rankings."""
    every = _rankings(trace, writers)
    rankings = [
        ranking._replace(roots=roots)
        for ranking in every
        if len(roots := ranking.roots[~stays[ranking.roots]]) and any(leaf in masked for leaf, _, _ in ranking.columns)
    ]

    def name_of(leaves: Collection[int], taken: Mapping[str, Ids]) -> str:
        name = paths[min((leaf for leaf in leaves if leaf in masked), key=list(writers).index)]
        numbered = (f"{name} ({i})" for i in range(2, len(taken) + 3))
        return next(each for each in (name, *numbered) if each not in taken)

    kinds: dict[object, list[Ranking]] = defaultdict(list)
    for ranking in rankings:
        kinds[ranking.kind].append(ranking)
    places = np.full(len(trace.parent), -1, np.int32)
    families: dict[str, Ids] = {}
    count = 0
    for same in kinds.values():
        roots = np.stack([ranking.roots for ranking in same])
        places[roots] = numbers = np.arange(count, count + roots.size).reshape(roots.shape)
        families[name_of({leaf for leaf, _, _ in same[0].columns}, families)] = numbers
        count += roots.size
    heads: dict[str, Ids] = {}
    groups: list[tuple[int, ...]] = []
    for layers in _heads(rankings, every, stays):
        leaves = {leaf for ranking in layers[0][0] for leaf, _, _ in ranking.columns}
        first, size = len(groups), len(layers) * len(layers[0])
        heads[name_of(leaves, heads)] = np.arange(first, first + size).reshape(len(layers), -1)
        whole = [np.concatenate([ranking.roots for ranking in head]) for layer in layers for head in layer]
        groups += [tuple(np.sort(places[roots]).tolist()) for roots in whole]

    def number(ids: Ids) -> Ids:
        return np.where(ids > 0, places[np.maximum(trace.roots(ids), 0)], -1).astype(np.int32)

    # By name groups and heads, the groups of every head, and a function of ids to numbers of groups or -1.
    return families, heads, tuple(groups), number


def _rankings(trace: Tracing, writers: Mapping[int, Ids]) -> list[Ranking]:
    """Sort classes by their columns and marks, in order of execution."""
    columns: list[tuple[int, int]] = []  # leaf and place in its stack; marks are numbered after them
    found = [(np.zeros(0, int), np.zeros(0, int))]
    for leaf, ids in writers.items():
        stacked = trace.uses[leaf].stacked if leaf in trace.uses else ()
        sizes = [n if axis in stacked else 1 for axis, n in enumerate(ids.shape)]
        place = np.broadcast_to(np.arange(math.prod(sizes)).reshape(sizes), ids.shape)
        found.append((trace.roots(ids[ids != NONE]), len(columns) + place[ids != NONE]))
        columns += [(leaf, i) for i in range(math.prod(sizes))]
    marks = [(trace.roots(ids), len(columns) + trace.roots(mark)) for ids, mark in trace.marks]
    roots, kinds = (np.concatenate(lines) for lines in zip(*found, *marks, strict=True))
    total = len(columns) + len(trace.parent)
    keys, counts = np.unique(roots * total + kinds, return_counts=True)
    roots, kinds = np.divmod(keys, total)
    codes = np.stack([kinds, np.where(kinds < len(columns), counts, 1)], 1)
    rankings = []
    for same, signature in _alike(roots, codes):
        written = tuple((*columns[kind], count) for kind, count in signature if kind < len(columns))
        inside = tuple(kind - len(columns) for kind, _ in signature if kind >= len(columns))
        rankings.append(Ranking(written, inside, same))
    return sorted(rankings, key=lambda ranking: ranking.roots[0])


def _alike(roots: Ids, codes: Ids) -> Iterator[tuple[Ids, list[list[int]]]]:
    """Sort classes with the same rows, given by class."""
    starts = np.flatnonzero(np.diff(roots, prepend=-1))
    lengths = np.diff(starts, append=len(roots))
    for length in np.unique(lengths):
        first = starts[lengths == length]
        rows = codes[first[:, None] + np.arange(length)].reshape(len(first), -1)
        signatures, which = np.unique(rows, axis=0, return_inverse=True)
        members = np.split(
            roots[first][np.argsort(which.ravel(), kind="stable")], np.cumsum(np.bincount(which.ravel()))[:-1]
        )
        yield from zip(members, signatures.reshape(-1, length, 2).tolist(), strict=True)


def _heads(rankings: Sequence[Ranking], every: Sequence[Ranking], stays: Ids) -> list[list[list[list[Ranking]]]]:
    """Heads by kind and by layer: the rankings that a mark, or marks that share a group, hold together."""
    parent: dict[int, int] = {}

    def top(mark: int) -> int:
        while parent.setdefault(mark, mark) != mark:
            mark = parent[mark]
        return mark

    for ranking in every:
        for mark in ranking.marks:
            parent[top(mark)] = top(ranking.marks[0])
    broken = {top(ranking.marks[0]) for ranking in every if ranking.marks and stays[ranking.roots].any()}
    heads: dict[int, list[Ranking]] = defaultdict(list)
    for ranking in rankings:
        if ranking.marks and top(ranking.marks[0]) not in broken:
            heads[top(ranking.marks[0])].append(ranking)
    kinds: dict[object, dict[object, list[list[Ranking]]]] = defaultdict(lambda: defaultdict(list))
    for head in heads.values():
        if len(head) > 1:  # query with key, and value: a group of a convolution has one
            kind = tuple(sorted(ranking.kind for ranking in head))
            kinds[kind][tuple(sorted(ranking.columns for ranking in head))].append(head)
    found = []
    for layers in map(list, map(dict.values, kinds.values())):
        ragged = len({len(layer) for layer in layers}) > 1 or len(layers[0]) == 1  # a stack of heads, not of layers
        found.append([[head for layer in layers for head in layer]] if ragged else layers)
    return found
