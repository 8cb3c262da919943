"""Rules of operations along some axes; along the others, which pass through, every entry stays on its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule
from td.compact.values import Value, merged
from td.program.indices import Broadcastable, KeptIndices, any_over, others, width

Passing = Mapping[Any, Sequence[Any]]
"""By axis of the output: the axis of every operand with the same entries; None where an operand lacks it."""


def _pairs(passing: Passing, operand: int) -> list[tuple[Any, Any]]:
    """Axes of an operand and of the output."""
    return [(axis, place) for place, axes in passing.items() if (axis := axes[operand]) is not None]


def _moved(small: Broadcastable, pairs: Sequence[tuple[Any, Any]], rank: int) -> Broadcastable:
    """Move axes to others of an array of some rank; all others have size 1."""
    order = [axis for axis, _ in sorted(pairs, key=lambda pair: pair[1])]
    sizes = {place: small.shape[axis] for axis, place in pairs}
    return small.transpose([*order, *others(small.ndim, *order)]).reshape([sizes.get(a, 1) for a in range(rank)])


def along(op: Operation, value: Value, passing: Passing, operand: int = 0) -> Value:
    """An operand's value along the output's axes: constant where all entries are the same constant."""
    pairs = _pairs(passing, operand)
    small = merged(value, others(len(op.shapes[operand]), *(axis for axis, _ in pairs)))
    return small.map(lambda array: _moved(array, pairs, len(op.shape)))


def passing_rule(
    passing: Callable[[Operation], Passing],
    forward: Callable[[Operation, Sequence[Value]], Value],
) -> Rule:
    """A rule by the axes that pass through; along the others everything is computed."""

    def backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
        needed: Needed = []
        for operand, shape in enumerate(op.shapes):
            pairs = _pairs(passing(op), operand)
            kept = any_over(computed, others(computed.ndim, *(place for _, place in pairs)))
            needed.append(_moved(kept, [(place, axis) for axis, place in pairs], len(shape)))
        return needed

    def emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
        lines, params, operands = passing(op), dict(op.params), []
        for operand, shape in enumerate(op.shapes):
            asked = {axis: wanted[place] for axis, place in _pairs(lines, operand)}
            operands.append(request.demand(operand, tuple(asked.get(a) for a in range(len(shape)))))
            if operand == 0 and "slice_sizes" in params:
                whole = [size == taken for size, taken in zip(shape, params["slice_sizes"], strict=True)]
                params["slice_sizes"] = tuple(
                    width(asked.get(a), size) if whole[a] else size for a, size in enumerate(params["slice_sizes"])
                )
        return op.bind(*operands, **params), tuple(w if place in lines else None for place, w in enumerate(wanted))

    return Rule(forward, backward, emit, lambda op, values: 0 not in op.shape)
