"""What a rule is: how one primitive passes on constants, needs and smaller arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from td.compact.values import Broadcastable, KeptIndices, Shape, Value, sized, width

AxisIndices = Mapping[int, Sequence[int]]
"""`{axis: indices}`."""

Needed = list[Broadcastable | None]
"""For every operand the entries that are needed; None for none."""


class Operation(NamedTuple):
    """An equation of one output with the shapes that it meets.

    `dynamic_axes` and `dynamic_out_axes` mark the axes of operands and output that grow with the inputs; `seen` has
    the shapes of the first operand and of the output at other sizes of the inputs.
    """

    name: str
    bind: Callable[..., Any]
    params: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    dtypes: tuple[Any, ...]
    dtype: Any
    dynamic_axes: tuple[tuple[bool, ...], ...] = ()
    dynamic_out_axes: tuple[bool, ...] = ()
    seen: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()


class Contraction(NamedTuple):
    """Over which indices of the contracted axes an operation still sums, and by name what the others come to."""

    used: KeptIndices
    absorbed: Mapping[str, Broadcastable] = {}


class Request(NamedTuple):
    """What a rule may ask for when it emits: operands at some indices, absorbed constants, contracted indices."""

    demand: Callable[[int, KeptIndices], Array]
    constant: Callable[[str], Array | None]
    used: KeptIndices


Emitted = tuple[Any, KeptIndices]
"""An array (a list of them where an operation has several outputs) and the indices that it has."""


def always(operation: Operation, values: Sequence[Value]) -> bool:
    """For rules without conditions."""
    del operation, values
    return True


class Rule(NamedTuple):
    """How one primitive is treated.

    Attributes:
      forward: `(operation, values) -> (live, constant)` of the output.
      backward: `(operation, values, computed, used) -> needed`, one small array or None an operand, given which entries
        of the output are computed.
      emit: `(operation, wanted, request) -> (array, indices)`, at least the wanted ones.
      applies: whether the rule knows this case; otherwise the operation is frozen.
      contract: of operations that sum: over which indices they still do, forced ones among them.
    """

    forward: Callable[[Operation, Sequence[Value]], tuple[Broadcastable, Broadcastable]]
    backward: Callable[[Operation, Sequence[Value], Broadcastable, KeptIndices], Needed]
    emit: Callable[[Operation, KeptIndices, Request], Emitted]
    applies: Callable[[Operation, Sequence[Value]], bool] = always
    contract: Callable[[Operation, Sequence[Value], Broadcastable, AxisIndices], Contraction] | None = None


def everything(shape: Shape) -> KeptIndices:
    """All indices."""
    return (None,) * len(shape)


def take(array: Array, indices: Broadcastable, axis: int) -> Array:
    """Some indices of an axis, as a slice where they are evenly spaced."""
    if len(indices) == 0:
        return lax.slice_in_dim(array, 0, 0, axis=axis)
    steps = np.unique(np.diff(indices))
    if len(steps) == 0 or (len(steps) == 1 and steps[0] > 0):
        stride = int(steps[0]) if len(steps) else 1
        return lax.slice_in_dim(array, int(indices[0]), int(indices[-1]) + 1, stride, axis)
    return jnp.take(array, indices, axis, mode="clip")


def narrow(array: Array, have: KeptIndices, wanted: KeptIndices) -> Array:
    """Some of the indices that there are."""
    for axis, (held, asked) in enumerate(zip(have, wanted, strict=True)):
        if asked is not None and (held is None or not np.array_equal(held, asked)):
            array = take(array, asked if held is None else np.searchsorted(held, asked), axis)
    return array


def sizes(kept: KeptIndices, shape: Shape) -> tuple[Any, ...]:
    """The shape that is left."""
    return tuple(width(indices, size) for indices, size in zip(kept, shape, strict=True))


def frozen_forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    """Everything is live."""
    del values
    rank = len(operation.shape)
    return np.ones((1,) * rank, bool), np.zeros((1,) * rank, np.float32)


def frozen_backward(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices
) -> Needed:
    """Everything is needed."""
    del values, computed, used
    return [np.ones((1,) * len(shape), bool) for shape in operation.shapes]


def frozen_emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    """The operation as it was."""
    del wanted
    operands = [request.demand(i, everything(shape)) for i, shape in enumerate(operation.shapes)]
    return operation.bind(*operands, **operation.params), everything(operation.shape)


FROZEN = Rule(frozen_forward, frozen_backward, frozen_emit)


def evaluate(operation: Operation, values: Sequence[Value]) -> Broadcastable:
    """The operation itself on whole known operands."""
    operands = [
        jnp.asarray(sized(value.constant, range(value.constant.ndim), shape), dtype)
        for value, shape, dtype in zip(values, operation.shapes, operation.dtypes, strict=True)
    ]
    return np.asarray(operation.bind(*operands, **operation.params))


def may_differ_from_zero(value: Value) -> Broadcastable:
    """Where an entry is live or a constant other than zero."""
    return value.live | (value.constant != 0)


def with_forced(kept: KeptIndices, forced: AxisIndices, shape: Shape) -> KeptIndices:
    """The indices together with forced ones."""
    lines = [
        line if line is None or axis not in forced else np.union1d(line, forced[axis]).astype(int)
        for axis, line in enumerate(kept)
    ]
    return tuple(None if line is None or len(line) == n else line for line, n in zip(lines, shape, strict=True))


def others(rank: int, *axes: int) -> list[int]:
    """All axes but some."""
    return [axis for axis in range(rank) if axis not in axes]
