"""Operations that move entries about: broadcast, reshape, transpose, squeeze, concatenate, slice, pad, reverse."""

import math
from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import lax

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule, others, sizes, take
from td.compact.values import Broadcastable, KeptIndices, Value, any_over, blocks, merged, reshaped, sized


def _broadcast_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    def widened(small: Broadcastable) -> Broadcastable:
        shape = [1] * len(operation.shape)
        for axis, place in enumerate(operation.params["broadcast_dimensions"]):
            shape[place] = small.shape[axis]
        return small.reshape(shape)

    return widened(values[0].live), widened(values[0].constant)


def _mapped(operation: Operation) -> list[int | None]:
    """For every axis of a broadcast operand, the output's axis with the same entries."""
    pairs = zip(operation.shapes[0], operation.params["broadcast_dimensions"], strict=True)
    return [int(place) if size == operation.shape[place] else None for size, place in pairs]


def _broadcast_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    mapped = [place for place in _mapped(operation) if place is not None]
    needed = any_over(computed, others(computed.ndim, *mapped))
    return [needed.reshape([1 if place is None else needed.shape[place] for place in _mapped(operation)])]


def _broadcast_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operand = request.demand(0, tuple(None if place is None else wanted[place] for place in _mapped(operation)))
    dimensions = operation.params["broadcast_dimensions"]
    return lax.broadcast_in_dim(operand, sizes(wanted, operation.shape), dimensions), wanted


def _stirred(operation: Operation) -> tuple[list[int], list[int]]:
    """Axes before and after whose entries meet others at other sizes: what grows is not the first of its run."""
    before, after = [], []
    for old, new in blocks(operation.shapes[0], operation.shape, operation.seen):
        if any(operation.dynamic_axes[0][a] for a in old[1:]) or any(operation.dynamic_out_axes[a] for a in new[1:]):
            before += old
            after += new
    return before, after


def _reshape_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    alike = merged(values[0].live, values[0].constant, _stirred(operation)[0])
    live, constant = (reshaped(small, operation.shapes[0], operation.shape, operation.seen) for small in alike)
    return live, constant


def _reshape_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    seen = [(after, before) for before, after in operation.seen]
    computed = any_over(computed, _stirred(operation)[1])
    return [reshaped(computed, operation.shape, operation.shapes[0], seen)]


def _reshape_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    before, after = operation.shapes[0], operation.shape
    asked: Needed = [None] * len(before)
    places: Needed = []
    found = blocks(before, after, operation.seen)
    for old, new in found:
        places.append(None)
        if any(wanted[axis] is not None for axis in new) and old:
            inner, outer = [before[a] for a in old], [after[a] for a in new]
            lines = [np.arange(after[a]) if (w := wanted[a]) is None else w for a in new]
            flat = np.ravel_multi_index(np.meshgrid(*lines, indexing="ij"), outer).ravel()
            kept = [np.unique(line) for line in np.unravel_index(flat, inner)]
            held = np.ravel_multi_index(np.meshgrid(*kept, indexing="ij"), inner).ravel()
            for axis, line in zip(old, kept, strict=True):
                asked[axis] = None if len(line) == before[axis] else line
            places[-1] = None if len(held) == len(flat) else np.searchsorted(held, flat)
    operand = request.demand(0, tuple(asked))
    if any(place is not None for place in places):
        operand = operand.reshape([math.prod(operand.shape[a] for a in old) for old, _ in found])
        for axis, place in enumerate(places):
            operand = operand if place is None else take(operand, place, axis)
    return operand.reshape(sizes(wanted, after)), wanted


def _transpose_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    order = operation.params["permutation"]
    return values[0].live.transpose(order), values[0].constant.transpose(order)


def _transpose_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    return [computed.transpose(np.argsort(operation.params["permutation"]))]


def _transpose_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    order = operation.params["permutation"]
    return request.demand(0, tuple(wanted[axis] for axis in np.argsort(order))).transpose(order), wanted


def _squeeze_axes(operation: Operation) -> list[int]:
    return [axis % len(operation.shapes[0]) for axis in operation.params["dimensions"]]


def _squeeze_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    axes = tuple(_squeeze_axes(operation))
    return values[0].live.squeeze(axes), values[0].constant.squeeze(axes)


def _squeeze_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    return [np.expand_dims(computed, _squeeze_axes(operation))]


def _squeeze_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    rest, axes = iter(wanted), _squeeze_axes(operation)
    asked = tuple(None if axis in axes else next(rest) for axis in range(len(operation.shapes[0])))
    return request.demand(0, asked).squeeze(axes), wanted


def _concatenate_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    axis = operation.params["dimension"]

    def joined(arrays: Sequence[Broadcastable]) -> Broadcastable:
        full = [sized(a, [axis], shape) for a, shape in zip(arrays, operation.shapes, strict=True)]
        rest = np.broadcast_shapes(*([1 if i == axis else n for i, n in enumerate(a.shape)] for a in full))
        return np.concatenate(
            [np.broadcast_to(a, [a.shape[axis] if i == axis else n for i, n in enumerate(rest)]) for a in full], axis
        )

    return joined([value.live for value in values]), joined([value.constant for value in values])


def _starts(operation: Operation) -> Broadcastable:
    widths = [shape[operation.params["dimension"]] for shape in operation.shapes]
    return np.cumsum([0, *widths])


def _concatenate_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    axis, starts = operation.params["dimension"], _starts(operation)
    if computed.shape[axis] == 1:
        return [computed] * len(values)
    return [np.take(computed, np.arange(low, high), axis) for low, high in pairwise(starts)]


def _concatenate_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axis, starts, parts = operation.params["dimension"], _starts(operation), []
    for place, (low, high) in enumerate(pairwise(starts)):
        asked = wanted[axis]
        here = None if asked is None else asked[(asked >= low) & (asked < high)] - low
        if here is None or len(here):
            here = None if here is not None and len(here) == high - low else here
            parts.append(request.demand(place, (*wanted[:axis], here, *wanted[axis + 1 :])))
    return jnp.concatenate(parts, axis), wanted


def _slice_lines(operation: Operation) -> list[Broadcastable]:
    """The indices that a slice takes of every axis."""
    params = operation.params
    strides = params["strides"] or (1,) * len(operation.shape)
    return [np.arange(*line) for line in zip(params["start_indices"], params["limit_indices"], strides, strict=True)]


def _cut_later(operation: Operation) -> list[bool]:
    """Axes that are computed whole, because how much is taken of them depends on the inputs' sizes."""
    return [was or grows for was, grows in zip(operation.dynamic_axes[0], operation.dynamic_out_axes, strict=True)]


def _slice_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    def cut(small: Broadcastable) -> Broadcastable:
        for axis, line in enumerate(_slice_lines(operation)):
            small = np.take(small, line, axis) if small.shape[axis] > 1 else small
        return small

    # Of a fixed table, other sizes take other entries.
    tables = [a for a, later in enumerate(_cut_later(operation)) if later and not operation.dynamic_axes[0][a]]
    live, constant = merged(values[0].live, values[0].constant, tables)
    return cut(live), cut(constant)


def _slice_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    needed = computed
    for axis, (line, later) in enumerate(zip(_slice_lines(operation), _cut_later(operation), strict=True)):
        size = operation.shapes[0][axis]
        if len(line) < size and not later:
            source = sized(needed, [axis], operation.shape)
            needed = np.zeros([size if a == axis else n for a, n in enumerate(source.shape)], bool)
            needed[tuple(line if a == axis else slice(None) for a in range(needed.ndim))] = source
        elif len(line) < size:
            needed = any_over(needed, [axis])
    return [needed]


def _slice_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    # Part of the choice of indices, but for axes that are computed whole.
    asked, cut = [], []
    for axis, (line, size, later) in enumerate(
        zip(_slice_lines(operation), operation.shapes[0], _cut_later(operation), strict=True)
    ):
        chosen = line if (w := wanted[axis]) is None else line[w]
        whole = len(chosen) == size
        asked.append(None if whole or later else chosen)
        cut += [] if whole or not later else [(axis, chosen)]
    operand = request.demand(0, tuple(asked))
    for axis, chosen in cut:
        operand = take(operand, chosen, axis)
    return operand, wanted


def _pad_applies(operation: Operation, values: Sequence[Value]) -> bool:
    return not values[1].live.any() and all(
        low >= 0 and high >= 0 and inner == 0 for low, high, inner in operation.params["padding_config"]
    )


def _padded(operation: Operation) -> list[tuple[int, int, int]]:
    """`(axis, before, after)` of the padded axes."""
    config = operation.params["padding_config"]
    return [(int(axis), int(line[0]), int(line[1])) for axis, line in enumerate(config) if line[0] or line[1]]


def _pad_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    live, constant = values[0].live, values[0].constant
    for axis, low, high in _padded(operation):
        around = [(low, high) if a == axis else (0, 0) for a in range(live.ndim)]
        live = np.pad(sized(live, [axis], operation.shapes[0]), around)
        filled = sized(constant, [axis], operation.shapes[0])
        constant = np.pad(filled, around, constant_values=values[1].constant)
    return live, constant


def _pad_backward(operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    for axis, low, _ in _padded(operation):
        if computed.shape[axis] > 1:
            computed = np.take(computed, np.arange(low, low + operation.shapes[0][axis]), axis)
    return [computed, np.ones((), bool)]


def _pad_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    """Where indices of a padded axis were chosen, those of the padding are not among them, or all are computed."""
    asked, have, config = list(wanted), list(wanted), list(operation.params["padding_config"])
    for axis, low, _ in _padded(operation):
        line, size = wanted[axis], operation.shapes[0][axis]
        if line is not None and ((line >= low) & (line < low + size)).all():
            asked[axis], config[axis] = line - low, (0, 0, 0)
        else:
            asked[axis] = have[axis] = None
    operand = request.demand(0, tuple(asked))
    widths = [(int(low), int(high), 0) for low, high, _ in config]
    return lax.pad(operand, request.demand(1, ()), widths), tuple(have)


def _reverse(operation: Operation, small: Broadcastable) -> Broadcastable:
    return np.flip(small, operation.params["dimensions"])


def _reverse_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axes, shape = operation.params["dimensions"], operation.shape
    asked = tuple(
        line if line is None or axis not in axes else shape[axis] - 1 - line[::-1] for axis, line in enumerate(wanted)
    )
    return lax.rev(request.demand(0, asked), axes), wanted


def _no_empty_axis(operation: Operation, values: Sequence[Value]) -> bool:
    del values
    return 0 not in operation.shape and operation.params.get("dimensions") is None


RULES = {
    "broadcast_in_dim": Rule(_broadcast_forward, _broadcast_backward, _broadcast_emit),
    "reshape": Rule(_reshape_forward, _reshape_backward, _reshape_emit, _no_empty_axis),
    "transpose": Rule(_transpose_forward, _transpose_backward, _transpose_emit),
    "squeeze": Rule(_squeeze_forward, _squeeze_backward, _squeeze_emit),
    "concatenate": Rule(_concatenate_forward, _concatenate_backward, _concatenate_emit),
    "slice": Rule(_slice_forward, _slice_backward, _slice_emit),
    "pad": Rule(_pad_forward, _pad_backward, _pad_emit, _pad_applies),
    "rev": Rule(
        lambda operation, values: (_reverse(operation, values[0].live), _reverse(operation, values[0].constant)),
        lambda operation, values, computed, used: [_reverse(operation, computed)],
        _reverse_emit,
    ),
}
