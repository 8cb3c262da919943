"""Rules: constant propagation, liveness and emission of one primitive."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td.compact.indices import Broadcastable, KeptIndices, Shape, everything, sized, take_kept
from td.compact.values import Value, unknown

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


def evaluate(op: Operation, values: Sequence[Value]) -> Broadcastable:
    """The operation on whole known operands."""
    operands = [
        jnp.asarray(sized(value.constant, range(value.constant.ndim), shape), dtype)
        for value, shape, dtype in zip(values, op.shapes, op.dtypes, strict=True)
    ]
    return np.asarray(op.bind(*operands, **op.params))


def padded(op: Operation) -> bool:
    """Test for zeros around or between the entries of a convolution or pooling, for any padding of a dynamic axis."""
    if op.name == "pad":
        config = zip(op.dynamic_out_axes, op.params["padding_config"], strict=True)
        return any(dynamic and any(widths) for dynamic, widths in config)
    dilated = op.params.get("lhs_dilation", ())
    return any(low > 0 or high > 0 for low, high in op.params["padding"]) or any(d > 1 for d in dilated)


def may_differ_from_zero(value: Value) -> Broadcastable:
    """Flags of entries that are live or a constant other than zero."""
    return value.live | (value.constant != 0)


def with_forced(kept: KeptIndices, forced: AxisIndices, shape: Shape) -> KeptIndices:
    """Kept indices together with forced ones."""
    lines = [
        line if line is None or axis not in forced else np.union1d(line, forced[axis]).astype(int)
        for axis, line in enumerate(kept)
    ]
    return tuple(None if line is None or len(line) == n else line for line, n in zip(lines, shape, strict=True))


def absorbing(used: KeptIndices, bias: Broadcastable, computed: KeptIndices | None) -> Contraction:
    """A contraction whose other terms are a bias of the computed indices."""
    bias = take_kept(bias, computed)
    return Contraction(used, {"bias": bias} if bias.any() else {})


def add_bias(output: Array, request: Request) -> Array:
    """Add the absorbed bias, if any."""
    bias = request.constant("bias")
    return output if bias is None else output + bias.astype(output.dtype)
