"""Rules: constant propagation, liveness and emission of one primitive."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from td.compact.values import Value, unknown
from td.program.indices import Broadcastable, KeptIndices, everything

AxisIndices = Mapping[int, Sequence[int]]
"""`{axis: indices}`."""

Needed = list[Broadcastable | None]
"""For every operand flags of the needed entries; None for none."""

Emitted = tuple[Any, KeptIndices]
"""An array (a list of them for an operation of several outputs) and the indices that it has."""


class Operation(NamedTuple):
    """An equation of one output with its shapes.

    Attributes:
      name: of the primitive.
      bind: calls the primitive, `bind(*operands, **params)`.
      params: of the equation.
      shapes: of the operands.
      shape: of the output.
      dtypes: of the operands.
      dtype: of the output.
      dynamic_axes: for every operand, one flag an axis: its size depends on the inputs' sizes.
      dynamic_out_axes: the same of the output.
      seen: shapes of the first operand and of the output at other sizes of the inputs.
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
    """The terms of an operation that sums.

    Attributes:
      used: the indices of every contracted axis that the smaller operation still sums over.
      absorbed: constants by name, the sum of the other terms.
    """

    used: KeptIndices
    absorbed: Mapping[str, Broadcastable] = {}


class Request(NamedTuple):
    """Arrays for a rule that emits.

    Attributes:
      demand: `(operand, indices) -> array`, an operand at some indices of every axis.
      constant: `(name) -> array or None`, an absorbed constant.
      used: `Contraction.used`.
    """

    demand: Callable[[int, KeptIndices], Array]
    constant: Callable[[str], Array | None]
    used: KeptIndices


class Rule(NamedTuple):
    """Treatment of one primitive.

    Attributes:
      forward: `(operation, values) -> value`, constant propagation.
      backward: `(operation, values, computed, used) -> needed`, liveness: flags of an operand's entries, of its rank,
        or None, given flags of the output's computed entries.
      emit: `(operation, wanted, request) -> (array, indices)`, at least the wanted indices of the output.
      applies: `(operation, values) -> bool`; an operation without a rule that applies is frozen.
      contract: `(operation, values, computed, forced) -> contraction`, of operations that sum.
    """

    forward: Callable[[Operation, Sequence[Value]], Value]
    backward: Callable[[Operation, Sequence[Value], Broadcastable, KeptIndices], Needed]
    emit: Callable[[Operation, KeptIndices, Request], Emitted]
    applies: Callable[[Operation, Sequence[Value]], bool] = lambda operation, values: True
    contract: Callable[[Operation, Sequence[Value], Broadcastable, AxisIndices], Contraction] | None = None


def _needs_everything(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    return [np.ones((1,) * len(shape), bool) for shape in op.shapes]


def _emit_whole(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operands = [request.demand(i, everything(shape)) for i, shape in enumerate(op.shapes)]
    return op.bind(*operands, **op.params), everything(op.shape)


FROZEN = Rule(lambda op, values: unknown(len(op.shape)), _needs_everything, _emit_whole)
"""The rule of operations that stay whole."""
