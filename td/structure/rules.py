"""Rules of labels: the output of one equation for live operands."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from td.program.equations import ELEMENTWISE
from td.program.indices import on_axes, others, padded_places, spread
from td.program.links import CUMULATIVE, MIXED, REDUCTIONS, WINDOWS, windowed
from td.structure.classes import ANY, NONE, VECTOR, cut, merged, side_by_side
from td.structure.known import MOVES, axes_of_pieces, gathered, gathered_axis, in_pieces, passing_axes
from td.structure.products import convolution, lookup, product
from td.structure.state import Tracing
from td.structure.values import Axes, Ids, Known, Live, Op, Value, joined_live, on_grid, varying

MULTIPLIES = ("mul", "div", "and")
"""Operations that give zero for a unit of zeros whatever the other operand is."""


def live_output(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    """The outputs of an equation of a live operand; None where it has no rule."""
    for value in values:
        for leaf in value.mixed - {each.leaf for each in value.added} if isinstance(value, Known) else ():
            trace.words.setdefault(leaf, f"combined with another leaf before {op.where}")
    for place, value in enumerate(values):
        if isinstance(value, Known) and value.pieces and op.name != "concatenate":
            return _by_pieces(trace, op, values, place, value.axis)
    if op.name in MOVES:
        operand: Any = values[0]
        return operand.with_labels([trace.settled(MOVES[op.name](op, ids)) for ids in operand.labels])
    if op.name in ("gather", "dynamic_slice") and isinstance(values[0], Known):
        return lookup(trace, op, values)
    rule = elementwise if op.name in ELEMENTWISE or op.name == "clamp" else RULES.get(op.name)
    return None if rule is None else rule(trace, op, values)


def _by_pieces(trace: Tracing, op: Op, values: Sequence[Value], place: int, axis: int) -> Live | None:
    """An operation on concatenated leaves, piece by piece; None where it cuts them."""
    axes = axes_of_pieces(op, place, axis)
    if axes is None:
        return None
    pieces = list(in_pieces(op, values, place, axes))
    outputs = [live_output(trace, one, parts) or trace.opaque(one, parts) for one, parts in pieces]
    if axes[1] is not None:
        return side_by_side(trace, outputs, [one.shape for one, _ in pieces], axes[1])
    return joined_live(outputs).with_labels(merged(trace, [output.labels for output in outputs], True))


def elementwise(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Unite the units of live operands, entry by entry, and note the scales and offsets among the known ones."""
    live = [value for value in values if isinstance(value, Live)]
    cases = [value for value in values[op.name == "select_n" :] if isinstance(value, Live)]
    adds = op.name not in MULTIPLIES and len(cases) > 1
    labels = merged(trace, [value.labels for value in live], adds)
    units = [value for value in cases if trace.has_units(value.labels)]  # does a dead one show something live?
    revived = any(value.revived for value in units) or (adds and 0 < len(units) < len(cases))
    if op.name == "mul":
        revived = bool(units) and all(value.revived for value in units)
    for value, shape in zip(values, op.shapes, strict=True):
        if isinstance(value, Known) and value.leaf is not None and len(shape) == len(op.shape):
            labels, scaled = with_vector(trace, op, value, labels, revived)
            revived = revived and not scaled
    if revived and op.name == "mul":
        scales = [ids[trace.of_vectors(ids)] for value in live for ids in value.labels]
        leaves = {int(leaf) for ids in scales for leaf in np.unique(trace.unit[ids])}
        trace.reviving |= leaves
        revived = not leaves
    return joined_live(live).with_labels(labels)._replace(revived=revived)


def with_vector(trace: Tracing, op: Op, known: Known, labels: list[Ids], revived: bool) -> tuple[list[Ids], bool]:
    """Note the units of a scale or an offset, else make ids of it; also whether it scales what a dead unit shows."""
    kind, leaf, across = "scale" if op.name in MULTIPLIES else "offset", known.leaf, known.across
    for place in (leaf, *(term.leaf for term in known.added if term.leaf is not None)):
        trace.words.setdefault(place, "a scale" if kind == "scale" else "an offset")
    meeting, scaled = [ids for ids in labels if set(varying(ids)) & set(across)], False
    if not known.zero or op.name == "div":  # a divisor, and what is not zero where its leaf is, go with no unit
        return labels, False
    for ids in meeting:
        axes = varying(ids)
        if set(axes) <= set(across):
            followed = trace.of_either(ids)
            for each in (known, *known.added):
                if set(axes) <= set(each.across):
                    trace.write(kind, each, axes, op.shape, on_grid(np.where(followed, ids, NONE), axes))
            scaled |= revived and kind == "scale"
    if scaled:
        trace.reviving.add(leaf)
    coarse = [not trace.of_either(ids).any() and len(np.unique(ids)) < ids.size for ids in meeting]
    if not all(coarse) or not across:
        return labels, scaled
    labels = [ids for ids in labels if not set(varying(ids)) & set(across)]  # without statistics of several units
    ids = trace.new([op.shape[axis] if axis in across else 1 for axis in range(len(op.shape))], VECTOR, leaf)
    trace.write(kind, known, across, op.shape, on_grid(ids, across))
    return [*labels, ids], False


def _concatenate(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Side by side; a leaf among live values, such as a class token, is an offset of the units next to it."""
    axis, start = int(op.params["dimension"]), 0
    output = side_by_side(trace, values, op.shapes, axis)
    for value, shape in zip(values, op.shapes, strict=True):
        if isinstance(value, Known) and value.leaf is not None:
            part: Any = cut(output, axis, start, start + shape[axis])
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
        for axis, (config, size) in enumerate(zip(op.params["padding_config"], op.shape, strict=True)):
            if ids.shape[axis] > 1 and tuple(config) != (0, 0, 0):
                inside, places = padded_places(config, ids.shape[axis], size)
                ids = spread(np.take(ids, inside, axis), places, axis, size, ANY)
        labels.append(trace.settled(ids))
    return joined_live(values).with_labels(labels)


def _reduce(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    axes = tuple(op.params["axes"])
    sums = [trace.summed(ids, axes) for value in values if isinstance(value, Live) for ids in value.labels]
    return joined_live(values).with_labels([np.squeeze(ids, axes) for ids in sums if ids is not None])


def _choose_index(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    output = along(trace, op, values, op.params["axes"])[0]
    return output.with_labels([np.squeeze(ids, op.params["axes"]) for ids in output.labels])


def along(trace: Tracing, op: Op, values: Sequence[Value], axes: Axes) -> list[Live]:
    """Operations that mix entries along some axes and leave the others apart."""
    outputs = []
    for place in range(len(op.equations[-1].outvars)):
        value, labels = values[min(place, len(values) - 1)], []
        for ids in value.labels if isinstance(value, Live) else ():
            if any(ids.shape[axis] > 1 for axis in axes):
                trace.freeze(ids, op.where)
            else:
                labels.append(ids)
        outputs.append(joined_live(values).with_labels(labels))
    return outputs


def _mixing(trace: Tracing, op: Op, values: Sequence[Value]) -> list[Live]:
    return along(trace, op, values, MIXED.get(op.name, windowed)(op.params, (*op.shapes, op.shape)))


def _dynamic_update_slice(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    operands = [_mixing(trace, op, [value])[0].labels for value in values[:2]]
    return joined_live(values).with_labels(merged(trace, operands, True))


def _gather(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Axes taken whole pass; along one axis, entries at known places are taken."""
    operand, index = values
    number, inner, labels = index.number if isinstance(index, Known) else None, passing_axes(op), []
    for ids in operand.labels if isinstance(operand, Live) else ():
        if set(varying(ids)) <= inner.keys():
            labels.append(on_axes(ids, inner, len(op.shape)))
        elif gathered_axis(op) is not None and number is not None:
            labels.append(trace.settled(gathered(op, number, ids)))
        else:
            trace.freeze(ids, op.where)
    return joined_live(values).with_labels(labels)


def _scatter(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Updates of whole slices: their units are those of the operand's same axes."""
    numbers, (operand, _, updates) = op.params["dimension_numbers"], values
    inserted = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = dict(zip(numbers.update_window_dims, others(len(op.shape), *inserted), strict=True))
    labels = list(operand.labels) if isinstance(operand, Live) else []
    for ids in updates.labels if isinstance(updates, Live) else ():
        within = set(varying(ids)) <= set(numbers.update_window_dims)
        placed = on_axes(ids, window, len(op.shape)) if within else ids
        if within and all(size in (1, n) for size, n in zip(placed.shape, op.shape, strict=True)):
            labels = merged(trace, [labels, [placed]], True)
        else:
            trace.freeze(ids, op.where)
    return joined_live(values).with_labels(labels)


RULES: dict[str, Callable[[Tracing, Op, Sequence[Value]], Any]] = {
    "argmax": _choose_index,
    "argmin": _choose_index,
    "concatenate": _concatenate,
    "conv_general_dilated": convolution,
    "dot_general": product,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "top_k": lambda trace, op, values: along(trace, op, values, [len(op.shapes[0]) - 1]),
    **dict.fromkeys(("sort", "dynamic_slice", "reduce_window", *WINDOWS, *CUMULATIVE), _mixing),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **{f"scatter{kind}": _scatter for kind in ("", "-add", "_add", "-mul", "_mul", "-min", "_min", "-max", "_max")},
}
"""The rules of live operands, by primitive."""
