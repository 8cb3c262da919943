"""Products and convolutions with a leaf, which make it a kernel, look-ups in it, and products of two live values."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from td.program.indices import on_axes, placed_at
from td.program.links import Side, sides_of
from td.structure.classes import merged
from td.structure.known import passing_axes
from td.structure.state import Tracing
from td.structure.values import Axes, Ids, Known, Labels, Live, Op, Value, joined_live, meet, on_grid, varying


def product(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """`dot_general`."""
    sides, (left, right) = sides_of(op.params["dimension_numbers"], op.shapes), values
    if isinstance(left, Live) and isinstance(right, Live):
        return _of_live(trace, op, sides, (left, right))
    place = 0 if isinstance(left, Known) else 1
    own, other, shape, known, live = sides[place], sides[1 - place], op.shapes[place], values[place], values[1 - place]
    assert isinstance(known, Known) and isinstance(live, Live)
    rest = _remaining(trace, op, live, other)
    output = joined_live([live]).with_labels(rest)
    if known.leaf is None:
        trace.count(op, None, live.labels)
        _mark_heads(trace, live, other)
        return output
    if not own.contracted:
        trace.words.setdefault(known.leaf, "a scale")
        for ids in rest:
            axes = [axis for axis, place in own.placed.items() if ids.shape[place] > 1]
            if axes and len(axes) == len(varying(ids)) and known.zero:
                units = on_grid(trace.units_of(ids), [own.placed[axis] for axis in axes])
                trace.write("scale", known, axes, shape, units)
        return output
    if own.free and not trace.use(op, known, [own.batch, own.contracted, own.free], live):
        return trace.opaque(op, [known, live])
    for ids in () if live.revived else live.labels:
        if any(ids.shape[axis] > 1 for axis in other.contracted):
            trace.write("input", known, own.rows, shape, trace.united(ids, other.rows))
    if not own.free:
        trace.words.setdefault(known.leaf, "a vector")
        trace.followed |= live.kernels
        return output
    axes = [*own.batch, *own.free]
    ids = trace.leaf_units(op, known, axes, len(own.batch), shape)
    trace.count(op, known.leaf, [*(() if live.revived else live.labels), ids])
    return passed(trace, op, known, live, ids, [own.placed[axis] for axis in axes], rest)


def _remaining(trace: Tracing, op: Op, live: Live, side: Side) -> list[Ids]:
    """Labels of the axes that a product leaves."""
    sums = [trace.summed(ids, side.contracted) for ids in live.labels]
    return [on_axes(ids, side.placed, len(op.shape)) for ids in sums if ids is not None]


def passed(trace: Tracing, op: Op, known: Known, live: Live, ids: Ids, places: Axes, rest: Labels) -> Live:
    """The output of a kernel, with its units at some axes."""
    trace.followed |= live.kernels
    own = placed_at(ids, places, len(op.shape))
    apart = [other for other in rest if not meet(other, own)]
    return Live(kernels=frozenset({known.leaf})).with_labels([own, *apart])


def _of_live(trace: Tracing, op: Op, sides: tuple[Side, Side], values: tuple[Live, Live]) -> Live:
    """A product of two live values: contracted units are one."""
    left, right = (
        [_lined(trace, ids, sides, place) for ids in value.labels if _reads(trace, ids, sides[place])]
        for place, value in enumerate(values)
    )
    for one, other in itertools.product(left, right):
        trace.unite(one, other)
    for place, own in enumerate((left, right)):
        if own and not (left and right) and _stacked(values[1 - place], sides[1 - place]):
            trace.factors += own
    again = [ids for ids in values[1].labels if not any(ids.shape[axis] > 1 for axis in sides[1].contracted)]
    trace.count(op, None, [*values[0].labels, *again])
    rests = [_remaining(trace, op, value, side) for value, side in zip(values, sides, strict=True)]
    for one, other in itertools.product(*rests):
        if meet(one, other):
            _mark_batch(trace, one, other, len(sides[0].batch))
    labels = merged(trace, rests, False)
    for value, side, rest in zip(values, sides, rests, strict=True):
        _mark_heads(trace, value, side, rest, len(op.shape))
    alive = any(value.revived and trace.has_units(rest) for value, rest in zip(values, rests, strict=True))
    return joined_live(values).with_labels(labels)._replace(revived=alive)


def _reads(trace: Tracing, ids: Ids, side: Side) -> bool:
    """Test for units that differ along contracted axes; those of a stack of kernels do not."""
    number = trace.unit[np.maximum(ids, 0)] if set(varying(ids)) & {*side.free} else ids
    return any((number != np.take(number, [0], axis)).any() for axis in side.contracted)


def _stacked(value: Live, side: Side) -> bool:
    """Test for units of a stack of kernels along contracted axes."""
    return any(
        ids.shape[axis] > 1 and set(varying(ids)) & {*side.free} for ids in value.labels for axis in side.contracted
    )


def _lined(trace: Tracing, ids: Ids, sides: tuple[Side, Side], place: int) -> Ids:
    """Units by batch and contracted axes, then the free ones of the left and of the right operand."""
    side, ones = sides[place], [1] * len(sides[1 - place].free)
    free = [ids.shape[axis] for axis in side.free]
    tail = [*free, *ones] if place == 0 else [*ones, *free]
    return on_grid(trace.units_of(ids), [*side.rows, *side.free]).reshape([*(ids.shape[a] for a in side.rows), *tail])


def _mark_batch(trace: Tracing, one: Ids, other: Ids, batch: int) -> None:
    """Units that meet a statistic of every batch entry, as values do the weights of their head."""
    wide = np.broadcast_arrays(one, other)
    kinds = [bool(trace.of_units(ids).any()) for ids in wide]
    if not any(kinds):
        trace.unite(*wide)
    elif kinds[0] != kinds[1]:
        units, statistic = wide if kinds[0] else wide[::-1]
        if set(varying(other if kinds[0] else one)) <= set(range(batch)):
            trace.mark(units, statistic)


def _mark_heads(trace: Tracing, live: Live, side: Side, rest: Labels = (), rank: int = 0) -> None:
    """Units that are contracted head by head are ranked within their head."""
    for ids in live.labels:
        heads = [axis for axis in side.batch if ids.shape[axis] > 1]
        if heads and _reads(trace, ids, side) and trace.of_units(ids).any():
            own = trace.new([size if axis in heads else 1 for axis, size in enumerate(ids.shape)])
            trace.mark(ids, np.broadcast_to(own, ids.shape))
            small = on_axes(own, side.placed, rank) if rank else own
            for other in rest:
                if varying(other) == varying(small) and not trace.of_units(other).any():
                    trace.unite(small, other)


def convolution(trace: Tracing, op: Op, values: Sequence[Value]) -> Live | None:
    """`conv_general_dilated`; channels that a group reads are ranked together, one alone goes with its outputs."""
    live, known = values
    if isinstance(live, Known) or isinstance(known, Live) or op.params["batch_group_count"] != 1:
        return None
    dimensions = op.params["dimension_numbers"]
    batch, channel, *space = dimensions.lhs_spec
    out, inner, *window = dimensions.rhs_spec
    apart = [ids for ids in live.labels if all(ids.shape[axis] == 1 for axis in (channel, *space))]
    rest = [on_axes(ids, {batch: dimensions.out_spec[0]}, len(op.shape)) for ids in apart]
    if known.leaf is None:
        return joined_live([live]).with_labels(rest)
    if not trace.use(op, known, [[], [inner, *window], [out]], live):
        return None
    groups, shape = op.params["feature_group_count"], op.shapes[1]
    units, each, alone = trace.leaf_units(op, known, [out], 0, shape), shape[out] // groups, shape[inner] == 1 < groups
    for read in (trace.united(ids, [channel]) for ids in live.labels if ids.shape[channel] > 1):
        axes, rows = [out, inner], read
        if groups == 1:
            axes = [inner]
        else:
            rows = read.reshape(groups, shape[inner]).repeat(each, 0)
            if alone:
                trace.unite(units, read.repeat(each))
            else:
                trace.mark(read, trace.new([groups]).repeat(shape[inner]))
        if not live.revived:
            trace.write("input", known, axes, shape, rows)
    trace.count(op, known.leaf, [units] if live.revived or alone else [*live.labels, units])
    if groups > 1 and not alone:
        trace.mark(units, trace.new([groups]).repeat(each))
    return passed(trace, op, known, live, units, [dimensions.out_spec[1]], rest)


def lookup(trace: Tracing, op: Op, values: Sequence[Value]) -> Live | None:
    """A gather of known entries at live indices: from a leaf it is an embedding, whose columns are units."""
    known: Any = values[0]
    output = joined_live(values)
    if not known.leaves:
        return output
    if known.leaf is None:
        return None
    shape, placed = op.shapes[0], passing_axes(op)
    axes = [axis for axis in placed if shape[axis] > 1]
    if trace.read("column", known, axes, shape) is None:
        return None
    columns = trace.leaf_units(op, known, axes, 0, shape, "column")
    return passed(trace, op, known, output, columns, [placed[axis] for axis in axes], ())
