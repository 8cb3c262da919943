"""Rows chosen by the inputs: embeddings and slices that start anywhere. Axes that are taken whole pass through."""

from collections.abc import Sequence

import numpy as np

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule, everything, others
from td.compact.values import Broadcastable, KeptIndices, Value, any_over, merged, width


def _passing(operation: Operation) -> dict[int, int]:
    """`{axis of the operand: axis of the output}` of those taken whole."""
    sizes, shape = operation.params["slice_sizes"], operation.shapes[0]
    if operation.name == "dynamic_slice":
        return {axis: axis for axis, size in enumerate(sizes) if size == shape[axis]}
    numbers = operation.params["dimension_numbers"]
    kept = [axis for axis in range(len(shape)) if axis not in numbers.collapsed_slice_dims]
    pairs = zip(kept, numbers.offset_dims, strict=True)
    return {a: place for a, place in pairs if sizes[a] == shape[a] and a not in numbers.start_index_map}


def _applies(operation: Operation, values: Sequence[Value]) -> bool:
    del values
    numbers = operation.params.get("dimension_numbers")
    return numbers is None or not numbers.operand_batching_dims


def _forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    passing = _passing(operation)
    live, constant = merged(values[0].live, values[0].constant, others(values[0].live.ndim, *passing))
    if (filled := operation.params.get("fill_value")) is not None:  # for indices out of range
        live = live | (constant != filled)
    shape = [1] * len(operation.shape)
    for axis, place in passing.items():
        shape[place] = np.broadcast_shapes(live.shape, constant.shape)[axis]
    both = np.broadcast_shapes(live.shape, constant.shape)
    return np.broadcast_to(live, both).reshape(shape), np.broadcast_to(constant, both).reshape(shape)


def _backward(operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    passing = _passing(operation)
    kept = any_over(computed, others(computed.ndim, *passing.values()))
    needed = kept.reshape([kept.shape[passing[a]] if a in passing else 1 for a in range(len(operation.shapes[0]))])
    return [needed, *(np.ones((1,) * len(shape), bool) for shape in operation.shapes[1:])]


def _emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    passing, shape = _passing(operation), operation.shapes[0]
    asked = tuple(wanted[passing[a]] if a in passing else None for a in range(len(shape)))
    have = tuple(line if place in passing.values() else None for place, line in enumerate(wanted))
    sizes = tuple(
        width(line, size) if a in passing else size
        for a, (line, size) in enumerate(zip(asked, operation.params["slice_sizes"], strict=True))
    )
    operands = [request.demand(place, everything(s)) for place, s in enumerate(operation.shapes) if place > 0]
    return operation.bind(request.demand(0, asked), *operands, **{**operation.params, "slice_sizes": sizes}), have


_RULE = Rule(_forward, _backward, _emit, _applies)
RULES = {"gather": _RULE, "dynamic_slice": _RULE}
