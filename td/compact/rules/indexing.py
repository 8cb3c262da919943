"""Slices and gathers whose start depends on the inputs, as of embeddings; axes taken whole pass through."""

from collections.abc import Sequence

import numpy as np

from td.compact.indices import Broadcastable, KeptIndices, any_over, everything, others, sizes
from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule
from td.compact.values import Value, merged


def _passing(op: Operation) -> dict[int, int]:
    """`{axis of the operand: axis of the output}` of those taken whole."""
    taken, shape = op.params["slice_sizes"], op.shapes[0]
    if op.name == "dynamic_slice":
        return {axis: axis for axis, size in enumerate(taken) if size == shape[axis]}
    numbers = op.params["dimension_numbers"]
    kept = [axis for axis in range(len(shape)) if axis not in numbers.collapsed_slice_dims]
    pairs = zip(kept, numbers.offset_dims, strict=True)
    return {a: place for a, place in pairs if taken[a] == shape[a] and a not in numbers.start_index_map}


def _forward(op: Operation, values: Sequence[Value]) -> Value:
    passing = _passing(op)
    live, constant, _ = merged(values[0], others(len(op.shapes[0]), *passing))
    if (filled := op.params.get("fill_value")) is not None:  # for indices out of range
        live = live | (constant != filled)
    shape = [1] * len(op.shape)
    for axis, place in passing.items():
        shape[place] = live.shape[axis]
    return Value(live, constant).map(lambda small: small.reshape(shape))


def _backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    passing = _passing(op)
    kept = any_over(computed, others(computed.ndim, *passing.values()))
    needed = kept.reshape([kept.shape[passing[a]] if a in passing else 1 for a in range(len(op.shapes[0]))])
    return [needed, *(np.ones((1,) * len(shape), bool) for shape in op.shapes[1:])]


def _emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    passing = _passing(op)
    asked = tuple(wanted[passing[a]] if a in passing else None for a in range(len(op.shapes[0])))
    have = tuple(line if place in passing.values() else None for place, line in enumerate(wanted))
    operands = [request.demand(place, everything(s)) for place, s in enumerate(op.shapes) if place > 0]
    params = {**op.params, "slice_sizes": sizes(asked, op.params["slice_sizes"])}
    return op.bind(request.demand(0, asked), *operands, **params), have


_GATHER = Rule(_forward, _backward, _emit, lambda op, values: not op.params["dimension_numbers"].operand_batching_dims)
RULES = {"gather": _GATHER, "dynamic_slice": Rule(_forward, _backward, _emit)}
