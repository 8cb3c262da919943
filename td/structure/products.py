"""Products with a leaf, which make it a kernel or an embedding, and products of two live values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from td.compact.indices import Broadcastable, others
from td.structure.classes import NONE
from td.structure.state import Op, Tracing, Use, Value, joined, joined_live
from td.structure.values import Known, Live, entries, leaf_axes, varying


def product(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """`dot_general`."""
    contracted, batch = op.params["dimension_numbers"]
    free = [others(len(op.shapes[side]), *batch[side], *contracted[side]) for side in (0, 1)]
    left, right = values
    if isinstance(left, Live) and isinstance(right, Live):
        return _of_live(trace, op, (left, right), batch, contracted, free)
    side = 0 if isinstance(left, Known) else 1
    known, live = values[side], values[1 - side]
    placed = _placed(op, batch, free)
    rest = _rest(trace, op, live, contracted[1 - side], placed[1 - side])
    is_kernel = known.leaf is not None and contracted[0] and free[side]
    if not is_kernel:
        if known.leaf is not None and contracted[0]:
            _read_rows(trace, known, op, side, live, batch, contracted)
        if known.leaf is not None and not contracted[0]:
            _scale(trace, known, op, side, rest, placed[side])
        marked = [] if known.leaf is not None else _heads(trace, live.labels, contracted[1 - side], batch[1 - side])
        trace.marks += marked
        return joined_live(values).with_labels(rest)
    use = _use(trace, op, known, batch[side], contracted[side], free[side], live)
    if use is None:
        return trace.opaque(op, values)
    _read_rows(trace, known, op, side, live, batch, contracted)
    axes = [*batch[side], *free[side]]
    ids = _units(trace, known, axes, op.shapes[side], len(batch[side]))
    return _passed(trace, use, live, ids, placed[side], axes, op, rest)


def _placed(op: Op, batch: Any, free: Any) -> list[dict[int, int]]:
    """For both sides the output's axis of every batch and free axis."""
    first = len(batch[0])
    left = {**{a: i for i, a in enumerate(batch[0])}, **{a: first + i for i, a in enumerate(free[0])}}
    right = {**{a: i for i, a in enumerate(batch[1])}, **{a: first + len(free[0]) + i for i, a in enumerate(free[1])}}
    return [left, right]


def _rest(trace: Tracing, op: Op, live: Live, contracted: Sequence[int], placed: dict[int, int]) -> list[Broadcastable]:
    """Labels of the axes that a product leaves."""
    kept = []
    for ids in live.labels:
        total = trace.classes.summed(ids, contracted)
        if total is not None:
            kept.append(_on_axes(total, placed, len(op.shape)))
    return kept


def _on_axes(ids: Broadcastable, placed: dict[int, int], rank: int) -> Broadcastable:
    order = sorted(placed, key=lambda axis: placed[axis])
    shape = [1] * rank
    for axis in order:
        shape[placed[axis]] = ids.shape[axis]
    gone = [axis for axis in range(ids.ndim) if axis not in placed]
    return np.transpose(ids, [*order, *gone]).reshape(shape)


def _use(
    trace: Tracing,
    op: Op,
    known: Known,
    stacked: Sequence[int],
    contracted: Sequence[int],
    free: Sequence[int],
    live: Live,
) -> Use | None:
    """How a leaf is used; None, and said so, where its axes are split or used otherwise elsewhere."""
    leaf, shape = known.leaf, trace.shapes[known.leaf]
    own, inner, units = (leaf_axes(known, axes, shape) for axes in (stacked, contracted, free))
    single = {a for a, n in enumerate(shape) if n > 1} - own - inner - units
    if not units and (ones := [a for a, n in enumerate(shape) if n == 1]):
        units = {ones[-1]}
    use = Use(leaf, frozenset(own | single), frozenset(inner), frozenset(units), live.fresh)
    split = (own & inner) or (own & units) or (inner & units)
    earlier = next((u for u in trace.uses if u.leaf == leaf), use)
    if split or not units:
        trace.left.setdefault(leaf, f"an axis is both fan-in and units in {op.where}")
    elif ("column", leaf) not in trace.tables and (earlier.units, earlier.stacked) != (use.units, use.stacked):
        trace.left.setdefault(leaf, f"its units lie along other axes in {op.where}")
    else:
        trace.uses.append(use)
        return use
    return None


def _units(trace: Tracing, known: Known, axes: Sequence[int], shape: Sequence[int], batch: int) -> Broadcastable:
    """The ids of a kernel's units on the grid of its batch and free axes, the same at every use."""
    sizes = [shape[axis] for axis in axes]
    found = trace.read("unit", known, axes, shape)
    known_before = found is not None and (found > 0).all()
    if known_before:
        return found
    place = entries(known, axes, shape, trace.shapes[known.leaf])
    flat = np.arange(int(np.prod(sizes[batch:], dtype=int))).reshape([1] * batch + sizes[batch:])
    if place is not None and not batch:
        flat = np.ravel_multi_index(place, trace.shapes[known.leaf])
    fresh = trace.classes.new(sizes, known.leaf, np.broadcast_to(flat, sizes))
    trace.write("unit", known, axes, shape, fresh)
    found = trace.read("unit", known, axes, shape)
    return fresh if found is None else found


def _passed(
    trace: Tracing,
    use: Use,
    live: Live,
    ids: Broadcastable,
    placed: dict[int, int],
    axes: Sequence[int],
    op: Op,
    rest: list[Broadcastable],
) -> Live:
    """The output of a kernel."""
    trace.followed |= live.kernels
    shape = [1] * len(op.shape)
    for axis, size in zip(axes, ids.shape, strict=True):
        shape[placed[axis]] = size
    own = ids.reshape(shape) if list(axes) == sorted(axes, key=lambda a: placed[a]) else ids
    apart = [other for other in rest if not set(varying(other)) & set(varying(own))]
    return Live((), frozenset({use.leaf}), False, False).with_labels([own, *apart])


def _read_rows(trace: Tracing, known: Known, op: Op, side: int, live: Live, batch: Any, contracted: Any) -> None:
    """Note which units the rows of a kernel read."""
    axes, here = [*batch[1 - side], *contracted[1 - side]], [*batch[side], *contracted[side]]
    for ids in live.labels:
        if any(ids.shape[axis] > 1 for axis in contracted[1 - side]):
            rows = _united(trace, np.where(trace.classes.of_units(ids), ids, NONE), axes)
            trace.write("input", known, here, op.shapes[side], rows)


def _united(trace: Tracing, ids: Broadcastable, axes: Sequence[int]) -> Broadcastable:
    """Ids along some axes alone, in their order; what one row reads elsewhere is one class."""
    rest = others(ids.ndim, *axes)
    first = ids.max(axis=tuple(rest), keepdims=True)
    trace.classes.unite(ids, first)
    return np.transpose(first, [*axes, *rest]).reshape([ids.shape[axis] for axis in axes])


def _scale(
    trace: Tracing, known: Known, op: Op, side: int, labels: Sequence[Broadcastable], placed: dict[int, int]
) -> None:
    """A product over nothing is a scale."""
    for ids in labels:
        axes = [axis for axis in placed if ids.shape[placed[axis]] > 1]
        if len(axes) == len(varying(ids)) and axes:
            units = np.where(trace.classes.of_units(ids), ids, NONE)
            trace.write("scale", known, axes, op.shapes[side], _united(trace, units, [placed[a] for a in axes]))


def _of_live(trace: Tracing, op: Op, values: Sequence[Live], batch: Any, contracted: Any, free: Any) -> Live:
    """Contracted units are one; those of batch axes lie in one head."""
    sides = [
        [ids for ids in value.labels if any(ids.shape[a] > 1 for a in contracted[s])] for s, value in enumerate(values)
    ]
    for left in sides[0]:
        for right in sides[1]:
            lined = []
            for side, ids in enumerate((left, right)):
                order = [*batch[side], *contracted[side], *free[side]]
                ones = [1] * len(free[1 - side])
                whole = np.transpose(np.where(trace.classes.of_units(ids), ids, NONE), order)
                cut = whole.ndim - len(free[side])
                tail = [*whole.shape[cut:], *ones] if side == 0 else [*ones, *whole.shape[cut:]]
                lined.append(whole.reshape([*whole.shape[:cut], *tail]))
            trace.classes.unite(*lined)
    placed = _placed(op, batch, free)
    rests = []
    for side, value in enumerate(values):
        rests.append(_rest(trace, op, value, contracted[side], placed[side]))
    labels = list(rests[0])
    lead = len(batch[0])
    for ids in rests[1]:
        meets = [i for i, other in enumerate(labels) if set(varying(other)) & set(varying(ids))]
        if not meets:
            labels.append(ids)
        for i in meets:
            one, other = np.broadcast_arrays(labels[i], ids)
            kinds = trace.classes.of_units(one).any(), trace.classes.of_units(other).any()
            if kinds[0] != kinds[1]:
                units, statistic = (one, other) if kinds[0] else (other, one)
                if set(varying(labels[i] if kinds[1] else ids)) <= set(range(lead)):
                    trace.marks.append((units.copy(), statistic.copy()))
            elif not kinds[0]:
                trace.classes.unite(one, other)
            labels[i] = joined(trace, labels[i], ids, adds=False)
    for side, value in enumerate(values):
        trace.marks += _heads(
            trace, value.labels, contracted[side], batch[side], rests[side], placed[side], len(op.shape)
        )
    return joined_live(values).with_labels(labels)


def _heads(
    trace: Tracing,
    labels: Sequence[Broadcastable],
    contracted: Sequence[int],
    batch: Sequence[int],
    rests: Sequence[Broadcastable] = (),
    placed: dict[int, int] | None = None,
    rank: int = 0,
) -> list[tuple[Broadcastable, Broadcastable]]:
    """Units that are contracted head by head, and the ids of their heads."""
    marks = []
    for ids in labels:
        heads = [axis for axis in batch if ids.shape[axis] > 1]
        inner = any(ids.shape[axis] > 1 for axis in contracted)
        if heads and inner and trace.classes.of_units(ids).any():
            shape = [n if axis in heads else 1 for axis, n in enumerate(ids.shape)]
            own = trace.classes.new(shape)
            marks.append((ids, np.broadcast_to(own, ids.shape)))
            for rest in rests:
                small = _on_axes(own, placed or {}, rank)
                if varying(rest) == varying(small) and not trace.classes.of_units(rest).any():
                    trace.classes.unite(small, rest)
    return marks


def convolution(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    """`conv_general_dilated` of live maps with a leaf."""
    live, known = values
    dimensions, groups = op.params["dimension_numbers"], op.params["feature_group_count"]
    if isinstance(live, Known) or isinstance(known, Live) or op.params["batch_group_count"] != 1:
        return None
    (out, inner, *window), channel = dimensions.rhs_spec, dimensions.lhs_spec[1]
    place = dimensions.out_spec[1]
    spatial = list(dimensions.lhs_spec[2:])
    rest = []
    for ids in live.labels:
        if not any(ids.shape[axis] > 1 for axis in (channel, *spatial)):
            rest.append(_on_axes(ids, {dimensions.lhs_spec[0]: dimensions.out_spec[0]}, len(op.shape)))
    if known.leaf is None:
        return joined_live(values).with_labels(rest)
    use = _use(trace, op, known, [], [inner, *window], [out], live)
    if use is None:
        return None
    shape = op.shapes[1]
    ids = _units(trace, known, [out], shape, 0)
    for label in live.labels:
        if label.shape[channel] > 1:
            read = _united(trace, np.where(trace.classes.of_units(label), label, NONE), [channel])
            rows = (
                read.reshape(groups, 1, shape[inner]).repeat(shape[out] // groups, 1).reshape(shape[out], shape[inner])
            )
            trace.write(
                "input", known, [inner] if groups == 1 else [out, inner], shape, rows[0] if groups == 1 else rows
            )
            if groups == op.shapes[0][channel] == shape[out]:
                trace.classes.unite(ids, read)
            elif groups > 1:
                own = trace.classes.new([groups])
                trace.marks.append((read, own.repeat(len(read) // groups)))
    if 1 < groups < op.shapes[0][channel]:
        trace.marks.append((ids, trace.classes.new([groups]).repeat(shape[out] // groups)))
    return _passed(trace, use, live, ids, {out: place}, [out], op, rest)


def lookup(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    """A gather of known entries at live indices: from a leaf it is an embedding, whose columns are units."""
    known = values[0]
    if known.leaf is None:
        return joined_live(values)
    if op.name == "gather":
        numbers, sizes = op.params["dimension_numbers"], op.params["slice_sizes"]
        inner = [
            a for a in range(len(sizes)) if a not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        ]
        placed = dict(zip(inner, numbers.offset_dims, strict=True))
    else:
        sizes = op.params["slice_sizes"]
        placed = {axis: axis for axis in range(len(sizes))}
    shape = op.shapes[0]
    axes = [axis for axis in placed if sizes[axis] == shape[axis] > 1]
    columns = trace.read("column", known, axes, shape)
    if columns is None:
        return None
    if not (columns > 0).all():
        trace.write(
            "column",
            known,
            axes,
            shape,
            trace.classes.new(columns.shape, known.leaf, np.arange(columns.size).reshape(columns.shape)),
        )
        columns = trace.read("column", known, axes, shape)
    out = [1] * len(op.shape)
    for axis in axes:
        out[placed[axis]] = shape[axis]
    trace.followed |= joined_live(values).kernels
    return Live((), frozenset({known.leaf}), False, False).with_labels([columns.reshape(out)])
