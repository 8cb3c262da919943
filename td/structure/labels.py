"""Labels of several live values together: joined entry by entry, or laid side by side."""

from collections.abc import Sequence

import numpy as np

from td.compact.indices import Broadcastable, Shape
from td.structure.classes import ANY, NONE, Classes
from td.structure.values import Known, Live, Value, joined_live, varying


def merged(
    classes: Classes, labels: Sequence[Broadcastable], others: Sequence[Broadcastable], adds: bool
) -> list[Broadcastable]:
    """Labels of two operands, those that vary along the same axes joined."""
    rest, result = list(others), []
    for ids in labels:
        meeting = [other for other in rest if set(varying(other)) & set(varying(ids))]
        rest = [other for other in rest if not set(varying(other)) & set(varying(ids))]
        for other in meeting:
            ids = joined(classes, ids, other, adds)
        result.append(ids)
    return result + rest


def joined(classes: Classes, one: Broadcastable, other: Broadcastable, adds: bool) -> Broadcastable:
    """Unite units with units; a unit to which a statistic is added that tells units apart is no unit of its own.

    A factor of several units, such as the gate of an expert, is none of them.
    """
    coarse, fine = sorted((one, other), key=lambda ids: len(varying(ids)))
    units = classes.of_units(one), classes.of_units(other)
    if not adds and units[0].any() and units[1].any() and set(varying(coarse)) < set(varying(fine)):
        classes.factors.append(coarse)
        return fine
    classes.unite(np.where(units[0], one, NONE), np.where(units[1], other, NONE))
    first = units[0] | ((one > 0) & ~units[1]) | ((other <= 0) & (one != ANY))
    result: Broadcastable = np.where(first, one, other)
    for own, theirs, mine in ((one, other, units[0] & ~units[1]), (other, one, units[1] & ~units[0])):
        vectors = classes.of_vectors(theirs)
        if _tell_apart(classes, own, theirs, mine & vectors):
            classes.unite(np.where(mine & vectors, own, NONE), theirs)
        mixed = mine & (theirs > 0) & ~vectors
        if adds and _tell_apart(classes, own, theirs, mixed):
            result = np.where(mixed, theirs, result)
    return classes.settled(result)


def _tell_apart(classes: Classes, units: Broadcastable, others: Broadcastable, where: Broadcastable) -> bool:
    """Test for as many other ids as units."""
    units, others = (np.broadcast_to(ids, where.shape)[where] for ids in (units, others))
    return len(others) > 0 and len(np.unique(others)) >= len(np.unique(classes.roots(units)))


def cut(value: Value, axis: int, start: int, stop: int) -> Value:
    """A live value's slice along one axis."""
    if isinstance(value, Known):
        return Known(mixed=value.leaves)
    place = (slice(None),) * axis + (slice(start, stop),)
    return value.with_labels([ids[place] if ids.shape[axis] > 1 else ids for ids in value.labels])


def side_by_side(classes: Classes, values: Sequence[Value], shapes: Sequence[Shape], axis: int) -> Live:
    """A concatenation; known parts match every unit."""
    rows: list[list[Broadcastable]] = []
    for place, value in enumerate(values):
        own = list(value.labels) if isinstance(value, Live) else []
        for row in rows:
            row.append(_matching(row, own, axis, _filler(value, len(shapes[0]))))
        for ids in own:
            rows.append([*(_filler(before, len(shapes[0])) for before in values[:place]), ids])
    labels = []
    for row in rows:
        common = np.broadcast_shapes(*([1 if a == axis else n for a, n in enumerate(ids.shape)] for ids in row))
        sizes = [[shape[axis] if a == axis else n for a, n in enumerate(common)] for shape in shapes]
        parts = [np.broadcast_to(ids, size) for ids, size in zip(row, sizes, strict=True)]
        labels.append(classes.settled(np.concatenate(parts, axis)))
    return joined_live(values).with_labels(labels)


def _filler(value: Value, rank: int) -> Broadcastable:
    return np.full((1,) * rank, ANY if isinstance(value, Known) else NONE)


def _matching(
    row: Sequence[Broadcastable], own: list[Broadcastable], axis: int, filler: Broadcastable
) -> Broadcastable:
    """Take the label that continues a row: one that varies along the same axes besides that of the concatenation."""
    kinds = {a for ids in row for a in varying(ids)} - {axis}
    for i, ids in enumerate(own):
        across = set(varying(ids)) - {axis}
        if across & kinds or not (across or kinds):
            return own.pop(i)
    return filler
