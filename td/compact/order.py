"""Entries that may change places, sorted so that the computed ones lie together: slices instead of gathers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact.factors import Factors
from td.program.equations import Program, is_key
from td.program.indices import Broadcastable

Spot = tuple[list[int], list[int], list[tuple[int, int, int]]]
"""Axes of a factor in a leaf, those of the factors around it, and axes that are cut, with start and end."""


class Move(NamedTuple):
    """One arrangement of a factor."""

    order: Broadcastable  # `[..., n]`, the entry that comes to each place, by the entries of other factors
    leaves: dict[str, tuple[list[int], list[Spot]]]  # by path the shape with one axis a factor, and this one's places


def moves_of(
    program: Program,
    factors: Factors,
    computed: Mapping[int, Broadcastable],
    leaves: Sequence[Any],
    paths: Sequence[str],
) -> Iterator[Move]:
    """Sort the entries of every factor that is free to: those that no value computes last, then value by value."""
    named, moved = dict(zip(program.leaves, paths, strict=True)), set[int]()
    holders: dict[int, list[int]] = {}
    entries = dict(computed)
    for value, leaf in zip(program.leaves, leaves, strict=True):
        if not is_key(jax.dtypes.result_type(leaf)):
            entries[value] = computed[value] & (np.asarray(leaf) != 0)
    for value in sorted(computed, key=lambda value: (value in named, value)):
        for factor in set(sum(factors.axes[value], ())):
            holders.setdefault(factor, []).append(value)
    free = factors.within.keys() - {whole for b in factors.branches for part, whole in b.pairs.items() if part != whole}
    for factor in sorted(free, key=lambda factor: (-len(factors.within[factor]), factor)):
        rest = tuple(other for other in sorted(factors.within[factor]) if other not in moved)
        shape = [factors.sizes[each] for each in (*rest, factor)]
        patterns = [_pattern(factors, value, entries[value], (*rest, factor), shape) for value in holders[factor]]
        lost = ~np.stack([np.logical_or.reduce(patterns), *{each.tobytes(): each for each in patterns}.values()])
        order = np.lexsort(lost[::-1], axis=-1)
        if (order != np.arange(shape[-1])).any():
            moved.add(factor)
            spots: dict[str, tuple[list[int], list[Spot]]] = {}
            for own, around, cut in _origins(factors, factor, rest):
                for value in (v for v in holders[own] if v in named):
                    flat: list[Any] = [*sum(factors.axes[value], ())]
                    lines = [(flat.index(f), *line) for f, line in cut.items()]
                    spot = [a for a, f in enumerate(flat) if f == own], [flat.index(f) for f in around], lines
                    spots.setdefault(named[value], ([factors.sizes[f] for f in flat], []))[1].append(spot)
            yield Move(order, spots)


def _origins(factors: Factors, factor: int, rest: Sequence[int]) -> Iterator[tuple[int, list[int], dict[int, Any]]]:
    """A factor, and those of the values that it is a slice of, with the others of an arrangement and what is cut."""
    found = [(factor, [*rest], dict[int, tuple[int, int]]())]
    for own, around, cut in found:
        yield own, around, cut
        for b in factors.branches:
            if b.pairs.get(own, own) != own:
                (outer,) = factors.now(b.outer)
                names = {**b.pairs, **{inner: outer for inner in factors.now(b.inner)}}
                lifted = {**{names[f]: line for f, line in cut.items()}, outer: (b.start, b.end)}
                whole = b.pairs[own], [names[f] for f in around], lifted
                found += [whole] if whole not in found else []  # of slices that are taken twice


def _pattern(
    factors: Factors, value: int, flags: Broadcastable, wanted: Sequence[int], shape: Sequence[int]
) -> Broadcastable:
    """Flags of a value's computed entries by those of some factors, of which the last may occur twice."""
    if 0 in flags.shape:
        return np.zeros(shape, bool)
    flat = sum((each for each, size in zip(factors.axes[value], flags.shape, strict=True) if size > 1), ())
    small, result = flags.reshape([factors.sizes[each] for each in flat]), np.zeros(shape, bool)
    own: list[int | None] = [i for i, each in enumerate(flat) if each == wanted[-1]]
    for place in own or [None]:
        places = [*(flat.index(each) if each in flat else None for each in wanted[:-1]), place]
        kept = [i for i in places if i is not None]
        lines = small.any(tuple(i for i in range(len(flat)) if i not in kept)).transpose(np.argsort(np.argsort(kept)))
        result |= lines.reshape([1 if i is None else n for i, n in zip(places, shape, strict=True)])
    return result


def moved(leaf: Any, path: str, moves: Sequence[Move]) -> Any:
    """A leaf with its entries in their new places."""
    for order, leaves in moves:
        if path in leaves:
            shape, spots = leaves[path]
            array = np.array(leaf).reshape(shape)
            for own, rest, cut in spots:
                lines = {axis: slice(start, end) for axis, start, end in cut}
                part = array[tuple(lines.get(axis, slice(None)) for axis in range(len(shape)))]
                for axis in own:
                    places = np.transpose(order, np.argsort([*rest, axis]))
                    sizes = [n if a == axis or a in rest else 1 for a, n in enumerate(part.shape)]
                    part[...] = np.take_along_axis(part, places.reshape(sizes), axis)
            leaf = array.reshape(np.shape(leaf))
    return leaf
