"""Operations that move entries; of a slice or gather that starts anywhere, axes taken whole pass through."""

import math
from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import lax

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule
from td.compact.values import Value, merged
from td.program.indices import (
    Broadcastable,
    KeptIndices,
    any_over,
    blocks,
    everything,
    inserted,
    others,
    reshaped,
    sized,
    sizes,
    take,
)


def _broadcast_forward(op: Operation, values: Sequence[Value]) -> Value:
    shape = [1] * len(op.shape)
    for size, place in zip(values[0].live.shape, op.params["broadcast_dimensions"], strict=True):
        shape[place] = size
    return values[0].map(lambda small: small.reshape(shape))


def _mapped(op: Operation) -> list[int | None]:
    """For every axis of a broadcast operand, the output's axis with the same entries."""
    pairs = zip(op.shapes[0], op.params["broadcast_dimensions"], strict=True)
    return [int(place) if size == op.shape[place] else None for size, place in pairs]


def _broadcast_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    mapped = _mapped(op)
    needed = any_over(computed, others(computed.ndim, *(place for place in mapped if place is not None)))
    return [needed.reshape([1 if place is None else needed.shape[place] for place in mapped])]


def _broadcast_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operand = request.demand(0, tuple(None if place is None else wanted[place] for place in _mapped(op)))
    return lax.broadcast_in_dim(operand, sizes(wanted, op.shape), op.params["broadcast_dimensions"]), wanted


def _mixed(op: Operation) -> tuple[list[int], list[int]]:
    """Axes before and after whose entries meet others at other sizes: a dynamic axis is not the first of its run."""
    before, after = [], []
    for old, new in blocks(op.shapes[0], op.shape, op.seen):
        if any(op.dynamic_axes[0][a] for a in old[1:]) or any(op.dynamic_out_axes[a] for a in new[1:]):
            before += old
            after += new
    return before, after


def _reshape_forward(op: Operation, values: Sequence[Value]) -> Value:
    return merged(values[0], _mixed(op)[0]).map(lambda small: reshaped(small, op.shapes[0], op.shape, op.seen))


def _reshape_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    seen = [(after, before) for before, after in op.seen]
    return [reshaped(any_over(computed, _mixed(op)[1]), op.shape, op.shapes[0], seen)]


def _reshape_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    before, after, found = op.shapes[0], op.shape, blocks(op.shapes[0], op.shape, op.seen)
    asked: Needed = [None] * len(before)
    places: Needed = []
    for old, new in found:
        places.append(None)
        if any(wanted[axis] is not None for axis in new) and old:
            inner, outer = [before[a] for a in old], [after[a] for a in new]
            lines = [np.arange(after[a]) if (w := wanted[a]) is None else w for a in new]
            flat = np.ravel_multi_index(np.ix_(*lines), outer).ravel()
            kept = [np.unique(line) for line in np.unravel_index(flat, inner)]
            held = np.ravel_multi_index(np.ix_(*kept), inner).ravel()
            for axis, line in zip(old, kept, strict=True):
                asked[axis] = None if len(line) == before[axis] else line
            places[-1] = None if len(held) == len(flat) else np.searchsorted(held, flat)
    operand = request.demand(0, tuple(asked))
    if any(place is not None for place in places):
        operand = operand.reshape([math.prod(operand.shape[a] for a in old) for old, _ in found])
        for axis, place in enumerate(places):
            operand = operand if place is None else take(operand, place, axis)
    return operand.reshape(sizes(wanted, after)), wanted


def _squeeze_axes(op: Operation) -> tuple[int, ...]:
    return tuple(axis % len(op.shapes[0]) for axis in op.params["dimensions"])


def _concatenate_forward(op: Operation, values: Sequence[Value]) -> Value:
    axis = op.params["dimension"]

    def concatenated(arrays: Sequence[Broadcastable]) -> Broadcastable:
        full = [np.moveaxis(sized(a, [axis], shape), axis, 0) for a, shape in zip(arrays, op.shapes, strict=True)]
        rest = np.broadcast_shapes(*(a.shape[1:] for a in full))
        return np.moveaxis(np.concatenate([np.broadcast_to(a, (len(a), *rest)) for a in full]), 0, axis)

    return Value(concatenated([value.live for value in values]), concatenated([value.constant for value in values]))


def _bounds(op: Operation) -> list[tuple[int, int]]:
    """The first index of every concatenated operand and that after its last."""
    return list(pairwise(np.cumsum([0, *(shape[op.params["dimension"]] for shape in op.shapes)]).tolist()))


def _concatenate_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    axis = op.params["dimension"]
    if computed.shape[axis] == 1:
        return [computed] * len(values)
    return [np.take(computed, np.arange(low, high), axis) for low, high in _bounds(op)]


def _concatenate_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axis, parts = op.params["dimension"], []
    for place, (low, high) in enumerate(_bounds(op)):
        asked = wanted[axis]
        here = None if asked is None else asked[(asked >= low) & (asked < high)] - low
        if here is None or len(here):
            here = None if here is None or len(here) == high - low else here
            parts.append(request.demand(place, (*wanted[:axis], here, *wanted[axis + 1 :])))
    return jnp.concatenate(parts, axis), wanted


def _slice_lines(op: Operation) -> list[tuple[Broadcastable, bool]]:
    """The operand's indices along every axis, and whether their number depends on the inputs' sizes.

    Such an axis is computed whole.
    """
    if op.name == "rev":
        return [(np.arange(n)[:: -1 if a in op.params["dimensions"] else 1], False) for a, n in enumerate(op.shape)]
    starts, limits, strides = (op.params[key] for key in ("start_indices", "limit_indices", "strides"))
    lines = map(np.arange, starts, limits, strides or (1,) * len(op.shape))
    return list(zip(lines, np.logical_or(op.dynamic_axes[0], op.dynamic_out_axes).tolist(), strict=True))


def _slice_forward(op: Operation, values: Sequence[Value]) -> Value:
    def cut(small: Broadcastable) -> Broadcastable:
        for axis, (line, _) in enumerate(_slice_lines(op)):
            small = np.take(small, line, axis) if small.shape[axis] > 1 else small
        return small

    # Of a fixed table, other sizes take other entries.
    tables = [a for a, (_, later) in enumerate(_slice_lines(op)) if later and not op.dynamic_axes[0][a]]
    return merged(values[0], tables).map(cut)


def _slice_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    for axis, (line, later) in enumerate(_slice_lines(op)):
        size = op.shapes[0][axis]
        if len(line) < size and later:
            computed = any_over(computed, [axis])
        elif len(line) < size or computed.shape[axis] > 1:
            source = np.moveaxis(sized(computed, [axis], op.shape), axis, 0)
            whole = np.zeros((size, *source.shape[1:]), bool)
            whole[line] = source
            computed = np.moveaxis(whole, 0, axis)
    return [computed]


def _slice_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    # Part of the choice of indices, but for axes that are computed whole.
    asked, cut = [], []
    for axis, (line, later) in enumerate(_slice_lines(op)):
        chosen = line if (w := wanted[axis]) is None else line[w]
        whole = len(chosen) == op.shapes[0][axis]
        asked.append(None if whole or later else chosen)
        cut += [] if whole or not later else [(axis, chosen)]
    operand = request.demand(0, tuple(asked))
    for axis, chosen in cut:
        operand = take(operand, chosen, axis)
    return operand, wanted


def _padded_axes(op: Operation) -> list[tuple[int, int, int]]:
    """`(axis, before, after)` of the padded axes."""
    config = op.params["padding_config"]
    return [(axis, int(line[0]), int(line[1])) for axis, line in enumerate(config) if line[0] or line[1]]


def _pad_forward(op: Operation, values: Sequence[Value]) -> Value:
    live, constant, _ = values[0]
    for axis, low, high in _padded_axes(op):
        around = [(low, high) if a == axis else (0, 0) for a in range(live.ndim)]
        live, constant = (sized(small, [axis], op.shapes[0]) for small in (live, constant))
        live, constant = np.pad(live, around), np.pad(constant, around, constant_values=values[1].constant)
    return Value(live, constant)


def _pad_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    for axis, low, _ in _padded_axes(op):
        if computed.shape[axis] > 1:
            computed = np.take(computed, np.arange(low, low + op.shapes[0][axis]), axis)
    return [computed, np.ones((), bool)]


def _pad_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    """Indices of a padded axis are chosen if none lies in the padding; else all are computed."""
    asked, have, config = list(wanted), list(wanted), list(op.params["padding_config"])
    for axis, low, _ in _padded_axes(op):
        line, size = wanted[axis], op.shapes[0][axis]
        if line is not None and ((line >= low) & (line < low + size)).all():
            asked[axis], config[axis] = line - low, (0, 0, 0)
        else:
            asked[axis] = have[axis] = None
    operand = request.demand(0, tuple(asked))
    widths = [(int(low), int(high), 0) for low, high, _ in config]
    return lax.pad(operand, request.demand(1, ()), widths), tuple(have)


def _transpose_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    order = op.params["permutation"]
    return request.demand(0, tuple(wanted[axis] for axis in np.argsort(order))).transpose(order), wanted


def _squeeze_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axes = _squeeze_axes(op)
    return request.demand(0, inserted(wanted, axes, everything(op.shapes[0]))).squeeze(axes), wanted


def _reverse_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axes, lines = op.params["dimensions"], enumerate(wanted)
    asked = tuple(line if line is None or a not in axes else op.shape[a] - 1 - line[::-1] for a, line in lines)
    return lax.rev(request.demand(0, asked), axes), wanted


def _passing(op: Operation) -> dict[int, int]:
    """`{axis of the operand: axis of the output}` of those that a gather or dynamic slice takes whole."""
    taken, shape = op.params["slice_sizes"], op.shapes[0]
    if op.name == "dynamic_slice":
        return {axis: axis for axis, size in enumerate(taken) if size == shape[axis]}
    numbers = op.params["dimension_numbers"]
    pairs = zip(others(len(shape), *numbers.collapsed_slice_dims), numbers.offset_dims, strict=True)
    return {a: place for a, place in pairs if taken[a] == shape[a] and a not in numbers.start_index_map}


def _gather_forward(op: Operation, values: Sequence[Value]) -> Value:
    passing, shape = _passing(op), [1] * len(op.shape)
    live, constant, _ = merged(values[0], others(len(op.shapes[0]), *passing))
    filled = op.params.get("fill_value")
    if filled is not None and filled == filled:  # for indices out of range, which NaN marks as errors
        live = live | (constant != filled)
    for axis, place in passing.items():
        shape[place] = live.shape[axis]
    return Value(live.reshape(shape), constant.reshape(shape))


def _gather_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    passing = _passing(op)
    kept = any_over(computed, others(computed.ndim, *passing.values()))
    needed = kept.reshape([kept.shape[passing[a]] if a in passing else 1 for a in range(len(op.shapes[0]))])
    return [needed, *(np.ones((1,) * len(shape), bool) for shape in op.shapes[1:])]


def _gather_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    passing = _passing(op)
    asked = tuple(wanted[passing[a]] if a in passing else None for a in range(len(op.shapes[0])))
    have = tuple(line if place in passing.values() else None for place, line in enumerate(wanted))
    starts = [request.demand(1 + i, everything(shape)) for i, shape in enumerate(op.shapes[1:])]
    params = {**op.params, "slice_sizes": sizes(asked, op.params["slice_sizes"])}
    return op.bind(request.demand(0, asked), *starts, **params), have


RULES = {
    "broadcast_in_dim": Rule(_broadcast_forward, _broadcast_backward, _broadcast_emit),
    "reshape": Rule(
        _reshape_forward,
        _reshape_backward,
        _reshape_emit,
        lambda op, values: 0 not in op.shape and op.params.get("dimensions") is None,
    ),
    "transpose": Rule(
        lambda op, values: values[0].map(lambda small: small.transpose(op.params["permutation"])),
        lambda op, values, computed, used: [computed.transpose(np.argsort(op.params["permutation"]))],
        _transpose_emit,
    ),
    "squeeze": Rule(
        lambda op, values: values[0].map(lambda small: small.squeeze(_squeeze_axes(op))),
        lambda op, values, computed, used: [np.expand_dims(computed, _squeeze_axes(op))],
        _squeeze_emit,
    ),
    "concatenate": Rule(_concatenate_forward, _concatenate_backward, _concatenate_emit),
    "slice": Rule(_slice_forward, _slice_backward, _slice_emit),
    "rev": Rule(_slice_forward, _slice_backward, _reverse_emit),
    "pad": Rule(
        _pad_forward,
        _pad_backward,
        _pad_emit,
        lambda op, values: (
            not values[1].live.any()
            and all(low >= 0 and high >= 0 and inner == 0 for low, high, inner in op.params["padding_config"])
        ),
    ),
    "dynamic_slice": Rule(_gather_forward, _gather_backward, _gather_emit),
    "gather": Rule(
        _gather_forward,
        _gather_backward,
        _gather_emit,
        lambda op, values: not op.params["dimension_numbers"].operand_batching_dims,
    ),
}
