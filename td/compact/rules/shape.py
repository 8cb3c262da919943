"""Operations that move entries."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.errors import InconclusiveDimensionOperation
from jax.export import is_symbolic_dim
from jaxtyping import Array

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
    if (asked := wanted[axis]) is None:
        return jnp.concatenate([request.demand(place, wanted) for place in range(len(op.shapes))], axis), wanted
    for place, (low, high) in enumerate(_bounds(op)):
        if len(here := asked[(asked >= low) & (asked < high)] - low):
            line = None if len(here) == high - low else here
            parts.append(request.demand(place, (*wanted[:axis], line, *wanted[axis + 1 :])))
    return jnp.concatenate(parts, axis), wanted


def _slice_lines(op: Operation) -> dict[int, tuple[Broadcastable, bool]]:
    """By changed axis the operand's indices, and whether their number depends on the inputs' sizes.

    Such an axis is computed whole.
    """
    later = np.logical_or(op.dynamic_axes[0], op.dynamic_out_axes).tolist()
    if op.name == "rev":
        return {axis: (np.arange(op.shape[axis])[::-1], False) for axis in op.params["dimensions"]}
    if op.name == "take":
        return {op.params["axis"]: (op.params["indices"], later[op.params["axis"]])}
    return {axis: (np.arange(*ends), later[axis]) for axis, ends in _ends(op).items()}


def _ends(op: Operation) -> dict[int, tuple[Any, Any, int]]:
    """By changed axis the start, limit and stride of a slice."""
    starts, limits, strides = (op.params[key] for key in ("start_indices", "limit_indices", "strides"))
    ends = enumerate(zip(starts, limits, strides or (1,) * len(starts), op.shapes[0], strict=True))
    return {axis: tuple(line[:3]) for axis, line in ends if line != (0, line[3], 1, line[3])}


def _slice_forward(op: Operation, values: Sequence[Value]) -> Value:
    def cut(small: Broadcastable) -> Broadcastable:
        for axis, (line, _) in _slice_lines(op).items():
            small = np.take(small, line, axis) if small.shape[axis] > 1 else small
        return small

    # Of a fixed table, other sizes take other entries.
    tables = [a for a, (_, later) in _slice_lines(op).items() if later and not op.dynamic_axes[0][a]]
    return merged(values[0], tables).map(cut)


def _slice_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    for axis, (line, later) in _slice_lines(op).items():
        if later:
            computed = any_over(computed, [axis])
        else:
            source = np.moveaxis(sized(computed, [axis], op.shape), axis, 0)
            whole = np.zeros((op.shapes[0][axis], *source.shape[1:]), bool)
            np.logical_or.at(whole, line, source)
            computed = np.moveaxis(whole, 0, axis)
    return [computed]


def _slice_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    # Part of the choice of indices, but for axes that are computed whole.
    asked, changed = list(wanted), [op.params["axis"]] if op.name == "take" else list(_ends(op))
    later = [axis for axis in changed if op.dynamic_axes[0][axis] or op.dynamic_out_axes[axis]]
    for axis in changed:
        chosen = None if axis in later else _slice_lines(op)[axis][0]
        asked[axis] = chosen if chosen is None or (line := wanted[axis]) is None else chosen[line]
    operand = request.demand(0, tuple(asked))
    for axis in later:
        operand = (
            op.bind(operand, **op.params)
            if op.name == "take"
            else _cut(operand, *_ends(op)[axis], axis, op.shape[axis])
        )
    return operand, tuple(None if axis in later else line for axis, line in enumerate(wanted))


def _cut(array: Array, start: Any, end: Any, stride: int, axis: int, size: Any) -> Array:
    try:
        return lax.slice_in_dim(array, start, end, stride, axis)
    except InconclusiveDimensionOperation:  # a symbolic size may lack entries
        return jnp.take(array, start + stride * jnp.arange(size), axis, mode="clip")


def _padded_axes(op: Operation) -> list[int]:
    return [axis for axis, line in enumerate(op.params["padding_config"]) if tuple(line) != (0, 0, 0)]


def _places(op: Operation, axis: int) -> tuple[Broadcastable, Broadcastable]:
    """The operand's indices that a padded axis keeps, and where the output has them."""
    low, _, between = op.params["padding_config"][axis]
    places = low + np.arange(op.shapes[0][axis]) * (between + 1)
    inside = np.flatnonzero((places >= 0) & (places < op.shape[axis]))
    return inside, places[inside]


def _pad_forward(op: Operation, values: Sequence[Value]) -> Value:
    live, constant, _ = values[0]
    for axis in _padded_axes(op):
        inside, places = _places(op, axis)
        around = (np.zeros((), bool), values[1].constant)
        live, constant = (
            _spread(np.take(sized(small, [axis], op.shapes[0]), inside, axis), places, axis, op.shape[axis], fill)
            for small, fill in zip((live, constant), around, strict=True)
        )
    return Value(live, constant)


def _spread(small: Broadcastable, places: Broadcastable, axis: int, size: int, fill: Broadcastable) -> Broadcastable:
    """Place the entries of an axis in a longer one."""
    moved = np.moveaxis(small, axis, 0)
    whole = np.full((size, *moved.shape[1:]), fill, np.result_type(small, fill))
    whole[places] = moved
    return np.moveaxis(whole, 0, axis)


def _pad_backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    for axis in _padded_axes(op):
        if computed.shape[axis] > 1:
            inside, places = _places(op, axis)
            kept = np.take(computed, places, axis)
            computed = _spread(kept, inside, axis, op.shapes[0][axis], np.zeros((), bool))
    return [computed, np.ones((), bool)]


def _pad_emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    """Indices of a padded axis are chosen if none lies in the padding; else all are computed."""
    asked, have, config = list(wanted), list(wanted), list(op.params["padding_config"])
    for axis in _padded_axes(op):
        if (line := wanted[axis]) is not None:
            inside, places = _places(op, axis)
            if np.isin(line, places).all():
                asked[axis], config[axis] = inside[np.searchsorted(places, line)], (0, 0, 0)
                continue
        asked[axis] = have[axis] = None
    return lax.pad(request.demand(0, tuple(asked)), request.demand(1, ()), config), tuple(have)


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
    "take": Rule(_slice_forward, _slice_backward, _slice_emit),
    "rev": Rule(_slice_forward, _slice_backward, _reverse_emit),
    "pad": Rule(
        _pad_forward,
        _pad_backward,
        _pad_emit,
        lambda op, values: not values[1].live.any(),
    ),
}
