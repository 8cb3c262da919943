"""Sums, means, other reductions and pooling."""

import math
from collections.abc import Sequence

import numpy as np

from td.compact.rules.base import AxisIndices, Contraction, Emitted, Needed, Operation, Request, Rule
from td.compact.rules.passing import Passing, beside, passing_rule
from td.compact.rules.terms import absorbing, add_bias, may_differ_from_zero, padded, with_forced
from td.compact.values import Value, merged
from td.program.indices import Broadcastable, KeptIndices, everything, others, projected, rectangle, sized
from td.program.links import WINDOWS, windowed


def _axes(op: Operation) -> tuple[int, ...]:
    return tuple(int(axis) for axis in op.params["axes"])


def _fixed(op: Operation) -> list[int]:
    """The reduced axes that are not dynamic."""
    return [axis for axis in _axes(op) if not op.dynamic_axes[0][axis]]


def _full(op: Operation, value: Value) -> Value:
    return value.map(lambda small: sized(small, _fixed(op), op.shapes[0]))


def _total(op: Operation, constant: Broadcastable) -> Broadcastable:
    """Sum, or average, over the reduced axes of fixed sizes; along the others a constant is its own mean."""
    total = constant.sum(_axes(op))
    return total / math.prod(op.shapes[0][a] for a in _fixed(op)) if op.name == "mean" else total


def _terms(op: Operation, value: Value) -> Broadcastable:
    """Flags of live terms; the sum over a dynamic axis is no constant, and a variance can do without zeros alone."""
    grows = op.name == "variance" or (op.name != "mean" and len(_fixed(op)) < len(_axes(op)))
    return may_differ_from_zero(value) if grows else value.live


def _sum_forward(op: Operation, values: Sequence[Value]) -> Value:
    value = _full(op, values[0])
    return Value(_terms(op, value).any(_axes(op)), _total(op, value.constant))


def _variance_forward(op: Operation, values: Sequence[Value]) -> Value:
    value = _full(op, values[0])
    return Value(value.live.any(_axes(op)), value.constant.var(_axes(op)))


def _sum_contract(op: Operation, values: Sequence[Value], computed: Broadcastable, forced: AxisIndices) -> Contraction:
    value, shape = _full(op, values[0]), op.shapes[0]
    kept = projected(_terms(op, value) & np.expand_dims(computed, _axes(op)), shape)
    if kept is None:
        return Contraction(everything(shape))
    kept = tuple(line if axis in _fixed(op) else None for axis, line in enumerate(kept))
    kept = with_forced(kept, forced, shape)
    return absorbing(
        kept, _total(op, np.where(rectangle(kept, shape), 0, value.constant)), projected(computed, op.shape)
    )


def _sum_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    needed = np.expand_dims(computed, _axes(op)) & rectangle(used, op.shapes[0])
    return [needed, *(np.ones((), bool) for _ in op.shapes[1:])]


def _sum_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    rest = iter(wanted)
    lines = tuple(line if axis in _axes(op) else next(rest) for axis, line in enumerate(request.used))
    operands = [request.demand(0, lines)]
    operands += [request.demand(1, ()) for _ in op.shapes[1:]]
    return add_bias(op.bind(*operands, **op.params), request), wanted


REDUCTIONS: dict[str, np.ufunc] = {"reduce_max": np.maximum, "reduce_min": np.minimum}
REDUCTIONS |= {"reduce_and": np.bitwise_and, "reduce_or": np.bitwise_or}


def _reduce_forward(op: Operation, values: Sequence[Value]) -> Value:
    """Constant where all entries are, of dynamic axes too."""
    live = values[0].live.any(_axes(op))
    if live.all():
        return Value(live, np.zeros(live.shape, np.float32))
    return Value(live, REDUCTIONS[op.name].reduce(values[0].constant, axis=_axes(op)))


def _window_forward(op: Operation, values: Sequence[Value]) -> Value:
    live, constant, _ = merged(values[0], windowed(op.params, op.shapes))
    padding, window = op.params["padding"], op.params["window_dimensions"]
    if op.name == "reduce_window_sum":
        live = live | (constant != 0) if padded(op) else live
        return Value(live, constant * np.asarray(math.prod(window)).astype(constant.dtype))
    # A window that lies in the padding alone would give no constant.
    reach = zip(padding, window, op.params["window_dilation"], strict=True)
    inside = all(max(pad) < size and (dilation == 1 or max(pad) == 0) for pad, size, dilation in reach)
    return Value(live if inside else np.ones_like(live), constant)


def _beside_windows(op: Operation) -> Passing:
    return {axis: (axis,) for axis in others(len(op.shape), *windowed(op.params, op.shapes))}


_SUM = Rule(_sum_forward, _sum_backward, _sum_emit, contract=_sum_contract)
_REDUCE = passing_rule(beside, _reduce_forward, lambda op, values: True)
_WINDOW = passing_rule(_beside_windows, _window_forward, lambda op, values: set(op.params["base_dilation"]) == {1})
RULES = {
    "reduce_sum": _SUM,
    "mean": _SUM,
    "variance": _SUM._replace(forward=_variance_forward),
    **dict.fromkeys(REDUCTIONS, _REDUCE),
    **dict.fromkeys(WINDOWS, _WINDOW),
}
