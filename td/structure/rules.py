"""What one equation does to the labels of live values."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from td.compact.indices import Broadcastable
from td.compact.rules.elementwise import NAMES
from td.structure.classes import ANY, NONE, VECTOR
from td.structure.convolutions import convolution, lookup
from td.structure.labels import cut, merged, side_by_side
from td.structure.moves import MOVES, gathered_axis, passing_axes
from td.structure.op import Op, resized
from td.structure.products import on_axes, product, sides_of
from td.structure.state import Tracing
from td.structure.values import Known, Live, Value, joined_live, on_grid, varying

MULTIPLIES = ("mul", "div", "and")
"""Operations that give zero for a unit of zeros whatever the other operand is."""


def live_output(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    """The outputs of an equation of a live operand; None where it has no rule."""
    for value in values:
        for leaf in value.mixed - {each.leaf for each in value.added} if isinstance(value, Known) else ():
            trace.words.setdefault(leaf, f"combined with another leaf before {op.where}")
    for place, value in enumerate(values):
        if isinstance(value, Known) and value.pieces and op.name != "concatenate":
            return _by_pieces(trace, op, values, place)
    if op.name in MOVES:
        operand = values[0]
        assert isinstance(operand, Live)
        return operand.with_labels([trace.classes.settled(MOVES[op.name](op, ids)) for ids in operand.labels])
    rule = elementwise if op.name in NAMES or op.name == "clamp" else RULES.get(op.name)
    return None if rule is None else rule(trace, op, values)


def _by_pieces(trace: Tracing, op: Op, values: Sequence[Value], place: int) -> Live | None:
    """An operation on concatenated leaves, piece by piece; None where it cuts them."""
    whole = values[place]
    assert isinstance(whole, Known)
    found = _axes_of_pieces(op, place, whole.axis)
    if found is None:
        return None
    along, after = found
    outputs, shapes, start = [], [], 0
    for piece, size in zip(whole.pieces, whole.sizes, strict=True):
        part = [piece if i == place else value for i, value in enumerate(values)]
        for i, axis in along.items():
            part[i] = cut(values[i], axis, start, start + size) if i != place else piece
        sizes = [resized(shape, along[i], size) if i in along else shape for i, shape in enumerate(op.shapes)]
        shapes.append(op.shape if after is None else resized(op.shape, after, size))
        one = op._replace(shapes=tuple(sizes), shape=shapes[-1])
        outputs.append(live_output(trace, one, part) or trace.opaque(one, part))
        start += size
    if after is not None:
        return side_by_side(trace.classes, outputs, shapes, after)
    labels: list[Broadcastable] = []
    for output in outputs:
        labels = merged(trace.classes, labels, output.labels, True)
    return joined_live(outputs).with_labels(labels)


def _axes_of_pieces(op: Op, place: int, axis: int) -> tuple[dict[int, int], int | None] | None:
    """Along which axes the operands lie in pieces, and the output: None where their outputs are added."""
    if op.name in NAMES:
        return {i: axis for i, shape in enumerate(op.shapes) if len(shape) == len(op.shape)}, axis
    if op.name == "dot_general":
        own, other = sides_of(op)[place], sides_of(op)[1 - place]
        if axis in own.free:
            return {place: axis}, own.placed[axis]
        lines = dict(zip(own.rows, other.rows, strict=True))
        return {place: axis, 1 - place: lines[axis]}, own.placed.get(axis)
    if op.name == "conv_general_dilated" and place == 1 and op.params["feature_group_count"] == 1:
        numbers = op.params["dimension_numbers"]
        if axis == numbers.rhs_spec[0]:
            return {1: axis}, numbers.out_spec[1]
        return ({1: axis, 0: numbers.lhs_spec[1]}, None) if axis == numbers.rhs_spec[1] else None
    return None


def elementwise(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Unite the units of live operands, entry by entry, and note the scales and offsets among the known ones."""
    live = [value for value in values if isinstance(value, Live)]
    cases = [value for value in values[op.name == "select_n" :] if isinstance(value, Live)]
    adds = op.name not in MULTIPLIES and len(cases) > 1
    labels: list[Broadcastable] = []
    for each in live:
        labels = merged(trace.classes, labels, each.labels, adds)
    revived = _revived(trace, op, cases, adds)
    for value, shape in zip(values, op.shapes, strict=True):
        if isinstance(value, Known) and value.leaf is not None and len(shape) == len(op.shape):
            labels, scaled = with_vector(trace, op, value, labels, revived)
            revived = revived and not scaled
    if revived and op.name == "mul":
        scales = [ids[trace.classes.of_vectors(ids)] for value in live for ids in value.labels]
        leaves = {int(leaf) for ids in scales for leaf in np.unique(trace.classes.unit[ids])}
        trace.reviving |= leaves
        revived = not leaves
    return joined_live(live).with_labels(labels)._replace(revived=revived)


def _revived(trace: Tracing, op: Op, live: Sequence[Live], adds: bool) -> bool:
    """Test whether a dead unit shows something live."""
    units = [value for value in live if any(trace.classes.of_units(ids).any() for ids in value.labels)]
    if not units:
        return False
    if op.name == "mul":
        return all(value.revived for value in units)
    return any(value.revived for value in units) or (adds and len(units) < len(live))


def with_vector(
    trace: Tracing, op: Op, known: Known, labels: list[Broadcastable], revived: bool
) -> tuple[list[Broadcastable], bool]:
    """Note which units a scale or an offset belongs to; where none is known yet, its entries are ids of their own.

    Also returns whether it scales what a dead unit shows. A divisor and what is not zero where its leaf is go with no
    unit.
    """
    kind, leaf, across = "scale" if op.name in MULTIPLIES else "offset", known.leaf, known.across
    assert leaf is not None
    for place in (leaf, *(term.leaf for term in known.added if term.leaf is not None)):
        trace.words.setdefault(place, "a scale" if kind == "scale" else "an offset")
    meeting, scaled = [ids for ids in labels if set(varying(ids)) & set(across)], False
    if not known.zero or op.name == "div":
        return labels, False
    for ids in meeting:
        axes = varying(ids)
        if set(axes) <= set(across):
            followed = trace.classes.of_either(ids)
            for each in (known, *known.added):
                if set(axes) <= set(each.across):
                    trace.write(kind, each, axes, op.shape, on_grid(np.where(followed, ids, NONE), axes))
            scaled |= revived and kind == "scale"
    if scaled:
        trace.reviving.add(leaf)
    coarse = [not trace.classes.of_either(ids).any() and len(np.unique(ids)) < ids.size for ids in meeting]
    if not all(coarse) or not across:
        return labels, scaled
    labels = [ids for ids in labels if not set(varying(ids)) & set(across)]  # without statistics of several units
    ids = trace.classes.new([op.shape[axis] if axis in across else 1 for axis in range(len(op.shape))], VECTOR, leaf)
    trace.write(kind, known, across, op.shape, on_grid(ids, across))
    return [*labels, ids], False


def _concatenate(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Side by side; a leaf among live values, such as a class token, is an offset of the units next to it."""
    axis, start = op.params["dimension"], 0
    output = side_by_side(trace.classes, values, op.shapes, axis)
    for value, shape in zip(values, op.shapes, strict=True):
        if isinstance(value, Known) and value.leaf is not None:
            part = cut(output, axis, start, start + shape[axis])
            assert isinstance(part, Live)
            with_vector(trace, op._replace(shape=shape), value, list(part.labels), False)
        start += shape[axis]
    return output


def _pad(trace: Tracing, op: Op, values: Sequence[Value]) -> Live | None:
    """Padding matches every unit, as what is known does."""
    operand = values[0]
    if not isinstance(operand, Live):
        return None
    labels = []
    for ids in operand.labels:
        for axis, (low, high, inner) in enumerate(op.params["padding_config"]):
            if (size := ids.shape[axis]) > 1 and (low, high, inner) != (0, 0, 0):
                places = low + np.arange(size) * (inner + 1)
                seen = (places >= 0) & (places < op.shape[axis])
                full = np.full(resized(ids.shape, axis, op.shape[axis]), ANY)
                full[(slice(None),) * axis + (places[seen],)] = np.compress(seen, ids, axis)
                ids = full
        labels.append(trace.classes.settled(ids))
    return joined_live(values).with_labels(labels)


def _reduce(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    axes = tuple(op.params["axes"])
    sums = [trace.classes.summed(ids, axes) for value in values if isinstance(value, Live) for ids in value.labels]
    return joined_live(values).with_labels([np.squeeze(ids, axes) for ids in sums if ids is not None])


def _choose_index(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    output = along(trace, op, values, op.params["axes"])[0]
    return output.with_labels([np.squeeze(ids, op.params["axes"]) for ids in output.labels])


def along(trace: Tracing, op: Op, values: Sequence[Value], axes: Sequence[int]) -> list[Live]:
    """Operations that mix entries along some axes and leave the others apart."""
    outputs = []
    for place in range(len(op.outputs)):
        value, labels = values[min(place, len(values) - 1)], []
        for ids in value.labels if isinstance(value, Live) else ():
            if any(ids.shape[axis] > 1 for axis in axes):
                trace.freeze(ids, op.where)
            else:
                labels.append(ids)
        outputs.append(joined_live(values).with_labels(labels))
    return outputs


def _window(trace: Tracing, op: Op, values: Sequence[Value]) -> list[Live]:
    window = op.params["window_dimensions"]
    changed = [axis for axis, (n, m) in enumerate(zip(op.shapes[0], op.shape, strict=True)) if n != m]
    return along(trace, op, values, [*changed, *(axis for axis, size in enumerate(window) if size > 1)])


def _dynamic_slice(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    if not isinstance(values[0], Live):
        return lookup(trace, op, values)
    return along(trace, op, values, [a for a, (n, m) in enumerate(zip(op.shapes[0], op.shape, strict=True)) if n != m])


def _dynamic_update_slice(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    part = [a for a, (n, m) in enumerate(zip(op.shapes[0], op.shapes[1], strict=True)) if n != m]
    labels: list[Broadcastable] = []
    for value in values[:2]:
        labels = merged(trace.classes, labels, along(trace, op, [value], part)[0].labels, True)
    return joined_live(values).with_labels(labels)


def _gather(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    """Axes taken whole pass; along one axis, entries at known places are taken."""
    operand, index = values
    if isinstance(operand, Known):
        return lookup(trace, op, values)
    number = index.number if isinstance(index, Known) else None
    inner, axis = passing_axes(op), gathered_axis(op)
    labels = []
    for ids in operand.labels:
        if set(varying(ids)) <= inner.keys():
            labels.append(on_axes(ids, inner, len(op.shape)))
        elif axis is not None and number is not None:
            rest = [place for place in range(len(op.shape)) if place not in op.params["dimension_numbers"].offset_dims]
            picked = np.take(ids, np.asarray(number)[..., 0], axis, mode="clip")
            labels.append(trace.classes.settled(np.moveaxis(picked, range(axis, axis + len(rest)), rest)))
        else:
            trace.freeze(ids, op.where)
    return joined_live(values).with_labels(labels)


def _scatter(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Updates of whole slices: their units are those of the operand's same axes."""
    numbers, (operand, _, updates) = op.params["dimension_numbers"], values
    inserted = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [axis for axis in range(len(op.shape)) if axis not in inserted]
    labels = list(operand.labels) if isinstance(operand, Live) else []
    for ids in updates.labels if isinstance(updates, Live) else ():
        shape = [1] * len(op.shape)
        for axis, place in zip(numbers.update_window_dims, window, strict=True):
            shape[place] = ids.shape[axis]
        whole = all(size in (1, n) for size, n in zip(shape, op.shape, strict=True))
        if whole and set(varying(ids)) <= set(numbers.update_window_dims):
            labels = merged(trace.classes, labels, [ids.reshape(shape)], True)
        else:
            trace.freeze(ids, op.where)
    return joined_live(values).with_labels(labels)


RULES: dict[str, Callable[[Tracing, Op, Sequence[Value]], Any]] = {
    "argmax": _choose_index,
    "argmin": _choose_index,
    "concatenate": _concatenate,
    "conv_general_dilated": convolution,
    "dot_general": product,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "top_k": lambda trace, op, values: along(trace, op, values, [len(op.shapes[0]) - 1]),
    "sort": lambda trace, op, values: along(trace, op, values, [op.params["dimension"]]),
    **{f"reduce_{kind}": _reduce for kind in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **{
        f"cum{kind}": lambda trace, op, values: along(trace, op, values, [op.params["axis"]])
        for kind in ("sum", "prod", "max", "min", "logsumexp")
    },
    **{f"reduce_window{kind}": _window for kind in ("_sum", "_max", "_min", "")},
    **{f"scatter{kind}": _scatter for kind in ("", "-add", "_add", "-mul", "_mul", "-min", "_min", "-max", "_max")},
}
"""The rules of live operands, by primitive."""
