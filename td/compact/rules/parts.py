"""Operations that cut arrays, join them or surround them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.errors import InconclusiveDimensionOperation

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule
from td.compact.values import Value, merged
from td.program.indices import Broadcastable, KeptIndices, any_over, on_axis, padded_places, sized, spread
from td.program.links import MIXED


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
    if (asked := wanted[axis]) is None:
        return jnp.concatenate([request.demand(place, wanted) for place in range(len(op.shapes))], axis), wanted
    for place, (low, high) in enumerate(_bounds(op)):
        if len(here := asked[(asked >= low) & (asked < high)] - low):
            line = None if len(here) == high - low else here
            parts.append(request.demand(place, (*wanted[:axis], line, *wanted[axis + 1 :])))
    return jnp.concatenate(parts, axis), wanted


def _ends(op: Operation) -> dict[Any, tuple[Any, Any, Any]]:
    """By changed axis the start, limit and stride of a slice."""
    starts, limits, strides = (op.params[key] for key in ("start_indices", "limit_indices", "strides"))
    ends = enumerate(zip(starts, limits, strides or (1,) * len(starts), op.shapes[0], strict=True))
    return {axis: line[:3] for axis, line in ends if line != (0, line[3], 1, line[3])}


def _changed(op: Operation) -> dict[Any, bool]:
    """By changed axis of a slice, whether its number of indices depends on the inputs' sizes: it is computed whole."""
    axes = {"rev": lambda: op.params["dimensions"], "take": lambda: [op.params["axis"]], "slice": lambda: _ends(op)}
    later = np.logical_or(op.dynamic_axes[0], op.dynamic_out_axes) & (op.name != "rev")
    return {axis: bool(later[axis]) for axis in axes[op.name]()}


def _line(op: Operation, axis: int) -> Broadcastable:
    """The operand's indices along a changed axis."""
    if op.name == "rev":
        return np.arange(op.shape[axis])[::-1]
    return op.params["indices"] if op.name == "take" else np.arange(*_ends(op)[axis])


def _slice_forward(op: Operation, values: Sequence[Value]) -> Value:
    def cut(small: Broadcastable) -> Broadcastable:
        for axis in _changed(op):
            small = np.take(small, _line(op, axis), axis) if small.shape[axis] > 1 else small
        return small

    # Of a fixed table, other sizes take other entries.
    tables = [axis for axis, later in _changed(op).items() if later and not op.dynamic_axes[0][axis]]
    return merged(values[0], tables).map(cut)


def _slice_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    for axis, later in _changed(op).items():
        if later:
            computed = any_over(computed, [axis])
        else:
            source = np.moveaxis(sized(computed, [axis], op.shape), axis, 0)
            whole = np.zeros((op.shapes[0][axis], *source.shape[1:]), bool)
            np.logical_or.at(whole, _line(op, axis), source)
            computed = np.moveaxis(whole, 0, axis)
    return [computed]


def _slice_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    # Part of the choice of indices, but for axes that are computed whole.
    asked, later = list(wanted), [axis for axis, later in _changed(op).items() if later]
    for axis in _changed(op):
        line = None if axis in later else _line(op, axis)
        asked[axis] = line if line is None or wanted[axis] is None else line[wanted[axis]]
    operand = request.demand(0, tuple(asked))
    for axis in later:
        operand = (
            op.bind(operand, **op.params)
            if op.name == "take"
            else _cut(operand, *_ends(op)[axis], axis, op.shape[axis])
        )
    return operand, tuple(None if axis in later else line for axis, line in enumerate(wanted))


def _cut(array: Any, start: Any, end: Any, stride: Any, axis: int, size: Any) -> Any:
    try:
        return lax.slice_in_dim(array, start, end, stride, axis)
    except InconclusiveDimensionOperation:  # a symbolic size may lack entries; jax2onnx wants the axis by name
        return jnp.take(array, start + stride * jnp.arange(size), axis=axis, mode="clip")


def _padded_axes(op: Operation) -> Sequence[int]:
    return MIXED["pad"](op.params, op.shapes)


def _places(op: Operation, axis: int) -> tuple[Broadcastable, Broadcastable]:
    return padded_places(op.params["padding_config"][axis], op.shapes[0][axis], op.shape[axis])


def _pad_forward(op: Operation, values: Sequence[Value]) -> Value:
    live, constant, _ = values[0]
    for axis in _padded_axes(op):
        inside, places = _places(op, axis)
        around = (np.zeros((), bool), values[1].constant)
        live, constant = (
            spread(np.take(sized(small, [axis], op.shapes[0]), inside, axis), places, axis, op.shape[axis], fill)
            for small, fill in zip((live, constant), around, strict=True)
        )
    return Value(live, constant)


def _pad_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    for axis in _padded_axes(op):
        if computed.shape[axis] > 1:
            inside, places = _places(op, axis)
            computed = spread(np.take(computed, places, axis), inside, axis, op.shapes[0][axis], np.zeros((), bool))
    return [computed, np.ones((), bool)]


def _pad_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    """Indices of a padded axis are chosen if none lies in the padding; else all are computed."""
    asked, have, config = list(wanted), list(wanted), list(op.params["padding_config"])
    for axis in _padded_axes(op):
        if (line := wanted[axis]) is not None:  # else its size may be symbolic
            inside, places = _places(op, axis)
            if np.isin(line, places).all():
                asked[axis], config[axis] = inside[np.searchsorted(places, line)], (0, 0, 0)
                continue
        asked[axis] = have[axis] = None
    return lax.pad(request.demand(0, tuple(asked)), request.demand(1, ()), config), tuple(have)


def _reverse_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axes, lines = op.params["dimensions"], enumerate(wanted)
    asked = tuple(line if line is None or a not in axes else op.shape[a] - 1 - line[::-1] for a, line in lines)
    return lax.rev(request.demand(0, asked), axes), wanted


def _is_written(op: Operation) -> Broadcastable:
    return on_axis(np.arange(op.shape[op.params["axis"]]) == op.params["index"], op.params["axis"], len(op.shape))


def _put_forward(op: Operation, values: Sequence[Value]) -> Value:
    here, update = _is_written(op), values[1].map(lambda small: np.expand_dims(small, op.params["axis"]))
    return Value(np.where(here, update.live, values[0].live), np.where(here, update.constant, values[0].constant))


def _put_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    axis, index = op.params["axis"], op.params["index"]
    return [computed & ~_is_written(op), np.take(sized(computed, [axis], op.shape), index, axis)]


def _put_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    axis, index = op.params["axis"], op.params["index"]
    line, rest = wanted[axis], (*wanted[:axis], *wanted[axis + 1 :])
    if line is None:
        return op.bind(request.demand(0, wanted), request.demand(1, rest), **op.params), wanted
    if index not in line:
        return request.demand(0, wanted), wanted
    update, line = jnp.expand_dims(request.demand(1, rest), axis), line[line != index]
    if not len(line):
        return update, wanted
    array = request.demand(0, (*wanted[:axis], line, *wanted[axis + 1 :]))
    before, after = jnp.split(array, [np.searchsorted(line, index)], axis)
    return jnp.concatenate([before, update, after], axis), wanted


RULES = {
    "put": Rule(_put_forward, _put_backward, _put_emit),
    "concatenate": Rule(_concatenate_forward, _concatenate_backward, _concatenate_emit),
    "slice": Rule(_slice_forward, _slice_backward, _slice_emit),
    "take": Rule(_slice_forward, _slice_backward, _slice_emit),
    "rev": Rule(_slice_forward, _slice_backward, _reverse_emit),
    "pad": Rule(_pad_forward, _pad_backward, _pad_emit, lambda op, values: not values[1].live.any()),
}
