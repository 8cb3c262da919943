"""Operations that arrange entries in other axes."""

import math
from collections.abc import Sequence

import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule
from td.compact.rules.passing import Passing, passing_rule
from td.compact.values import Value, merged
from td.program.indices import Broadcastable, KeptIndices, any_over, blocks, on_axes, others, reshaped, sizes, take


def _broadcast_forward(op: Operation, values: Sequence[Value]) -> Value:
    placed = dict(enumerate(op.params["broadcast_dimensions"]))
    return values[0].map(lambda small: on_axes(small, placed, len(op.shape)))


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
    have = list(wanted)
    for old, new in found:
        places.append(None)
        if any(is_symbolic_dim(after[axis]) for axis in new[1:]) or any(is_symbolic_dim(before[axis]) for axis in old):
            have = [None if axis in new else line for axis, line in enumerate(have)]
        elif any(wanted[axis] is not None for axis in new) and old:
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
    return operand.reshape(sizes(tuple(have), after)), tuple(have)


def _ordered(op: Operation) -> Passing:
    """The axes of a transpose or squeeze."""
    if op.name == "transpose":
        axes = op.params["permutation"]
    else:
        axes = others(len(op.shapes[0]), *(axis % len(op.shapes[0]) for axis in op.params["dimensions"]))
    return {place: (axis,) for place, axis in enumerate(axes)}


def _order_forward(op: Operation, values: Sequence[Value]) -> Value:
    placed = {axis: place for place, (axis,) in _ordered(op).items()}
    return values[0].map(lambda small: on_axes(small, placed, len(op.shape)))


_ORDER = passing_rule(_ordered, _order_forward, lambda op, values: True)
RULES = {
    "broadcast_in_dim": Rule(_broadcast_forward, _broadcast_backward, _broadcast_emit),
    "reshape": Rule(
        _reshape_forward,
        _reshape_backward,
        _reshape_emit,
        lambda op, values: 0 not in op.shape and op.params.get("dimensions") is None,
    ),
    "transpose": _ORDER,
    "squeeze": _ORDER,
}
