"""Sums, means, other reductions and pooling."""

import math
from collections.abc import Sequence

import numpy as np

from td.compact.rules.base import (
    AxisIndices,
    Contraction,
    Emitted,
    Needed,
    Operation,
    Request,
    Rule,
    everything,
    with_forced,
)
from td.compact.values import Broadcastable, KeptIndices, Value, any_over, merged, product, projected, sized


def _axes(operation: Operation) -> list[int]:
    return [int(axis) for axis in operation.params["axes"]]


def _fixed(operation: Operation) -> list[int]:
    """The reduced axes whose sizes do not depend on the inputs."""
    return [axis for axis in _axes(operation) if not operation.dynamic_axes[0][axis]]


def _full(operation: Operation, value: Value) -> tuple[Broadcastable, Broadcastable]:
    both = np.broadcast_shapes(value.live.shape, value.constant.shape)
    live, constant = (
        sized(np.broadcast_to(small, both), _fixed(operation), operation.shapes[0])
        for small in (value.live, value.constant)
    )
    return live, constant


def _dropped(operation: Operation, small: Broadcastable) -> Broadcastable:
    return small.squeeze(tuple(_axes(operation)))


def _total(operation: Operation, constant: Broadcastable) -> Broadcastable:
    """Sum, or average, over the reduced axes of fixed sizes: over the others a constant is its own mean."""
    total = _dropped(operation, constant.sum(tuple(_axes(operation)), keepdims=True))
    return total / math.prod(operation.shapes[0][a] for a in _fixed(operation)) if operation.name == "mean" else total


def _grows(operation: Operation) -> bool:
    return operation.name != "mean" and len(_fixed(operation)) < len(_axes(operation))


def _sum_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    live, constant = _full(operation, values[0])
    if _grows(operation):
        live = live | (constant != 0)
    return _dropped(operation, any_over(live, _axes(operation))), _total(operation, constant)


def _sum_contract(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, forced: AxisIndices
) -> Contraction:
    live, constant = _full(operation, values[0])
    asked = np.expand_dims(computed, tuple(_axes(operation)))
    terms = live & asked if not _grows(operation) else (live | (constant != 0)) & asked
    kept = projected(terms, operation.shapes[0])
    if kept is None:
        return Contraction(everything(operation.shapes[0]))
    kept = tuple(line if axis in _fixed(operation) else None for axis, line in enumerate(kept))
    kept = with_forced(kept, forced, operation.shapes[0])
    absorbed = _total(operation, np.where(product(kept, operation.shapes[0]), 0, constant))
    for axis, line in enumerate(projected(computed, operation.shape) or ()):
        if line is not None and absorbed.shape[axis] > 1:
            absorbed = np.take(absorbed, line, axis)
    return Contraction(kept, {"bias": absorbed} if absorbed.any() else {})


def _sum_backward(operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    needed = np.expand_dims(computed, tuple(_axes(operation))) & product(used, operation.shapes[0])
    return [needed, *(np.ones((), bool) for _ in operation.shapes[1:])]


def _asked(operation: Operation, wanted: KeptIndices, reduced: KeptIndices) -> KeptIndices:
    rest, axes = iter(wanted), _axes(operation)
    return tuple(reduced[a] if a in axes else next(rest) for a in range(len(operation.shapes[0])))


def _sum_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operands = [request.demand(0, _asked(operation, wanted, request.used))]
    operands += [request.demand(1, ())] if operation.name == "mean" else []
    output, bias = operation.bind(*operands, **operation.params), request.constant("bias")
    return output if bias is None else output + bias.astype(output.dtype), wanted


REDUCTIONS = {
    "reduce_max": np.maximum,
    "reduce_min": np.minimum,
    "reduce_and": np.bitwise_and,
    "reduce_or": np.bitwise_or,
}


def _reduce_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    """The largest, the smallest, all bits, any: constant where all entries are, and the same where an axis grows."""
    live, axes = _dropped(operation, any_over(values[0].live, _axes(operation))), _axes(operation)
    if live.all():
        return live, np.zeros(live.shape, np.float32)
    reduced = REDUCTIONS[operation.name].reduce(values[0].constant, axis=tuple(axes), keepdims=True)
    return live, _dropped(operation, reduced)


def _reduce_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    return [np.expand_dims(computed, tuple(_axes(operation)))]


def _reduce_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operand = request.demand(0, _asked(operation, wanted, everything(operation.shapes[0])))
    return operation.bind(operand, **operation.params), wanted


def _windowed(operation: Operation) -> list[int]:
    """The axes along which entries meet, or are left out."""
    params, axes = operation.params, range(len(operation.shape))
    keys = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    settings = [params[key] for key in keys if key in params]
    return [a for a in axes if any(s[a] != 1 for s in settings) or tuple(params["padding"][a]) != (0, 0)]


def _window_applies(operation: Operation, values: Sequence[Value]) -> bool:
    del values
    return all(dilation == 1 for dilation in operation.params["base_dilation"])


def _window_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    value, axes = values[0], _windowed(operation)
    live, constant = merged(value.live, value.constant, axes)
    params = operation.params
    padded = any(low > 0 or high > 0 for low, high in params["padding"])
    if operation.name == "reduce_window_sum":
        live = live | (constant != 0) if padded else live
        return live, constant * np.asarray(math.prod(params["window_dimensions"])).astype(constant.dtype)
    # A window that lies in the padding alone would give no constant.
    reach = zip(params["padding"], params["window_dimensions"], params["window_dilation"], strict=True)
    inside = all(max(pad) < window and (dilation == 1 or max(pad) == 0) for pad, window, dilation in reach)
    return live if inside else np.ones_like(live), constant


def _window_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    return [any_over(computed, _windowed(operation))]


def _window_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axes = _windowed(operation)
    asked = tuple(None if axis in axes else line for axis, line in enumerate(wanted))
    return operation.bind(request.demand(0, asked), **operation.params), asked


_SUM = Rule(_sum_forward, _sum_backward, _sum_emit, contract=_sum_contract)
_REDUCE = Rule(_reduce_forward, _reduce_backward, _reduce_emit)
_WINDOW = Rule(_window_forward, _window_backward, _window_emit, _window_applies)
RULES = {
    "reduce_sum": _SUM,
    "mean": _SUM,
    **dict.fromkeys(REDUCTIONS, _REDUCE),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _WINDOW),
}
