"""Elementwise operations."""

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np

from td.compact.rules.base import Operation
from td.compact.rules.passing import Passing, passing_rule
from td.compact.values import Value, on_host
from td.program.equations import ELEMENTWISE
from td.program.indices import Broadcastable

RENAMED = {"sub": "subtract", "mul": "multiply", "div": "divide", "max": "maximum", "min": "minimum", "neg": "negative"}
ON_HOST: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, RENAMED.get(name, name)) for name in (*RENAMED, "add", "square", "sqrt", "exp", "tanh")},
    **{"rsqrt": lambda x: 1 / np.sqrt(x), "stop_gradient": lambda x: x, "copy": lambda x: x},
}
"""Operations that NumPy computes alike, without a compilation for every shape."""


def _constants(op: Operation, arrays: Sequence[Broadcastable]) -> Broadcastable:
    """The operation on small constant arrays."""
    floats = all(jnp.issubdtype(dtype, jnp.floating) for dtype in (*op.dtypes, op.dtype))
    with np.errstate(all="ignore"):
        if op.name in ON_HOST and floats:
            return np.asarray(ON_HOST[op.name](*arrays))
        if op.name == "convert_element_type" and floats:
            return on_host(arrays[0].astype(op.dtype))
        common = np.broadcast_shapes(*(array.shape for array in arrays))
        operands = [
            jnp.asarray(np.broadcast_to(array, common) if shape else array, dtype)
            for array, shape, dtype in zip(arrays, op.shapes, op.dtypes, strict=True)
        ]
        return on_host(op.bind(*operands, **op.params))


def _forward(op: Operation, values: Sequence[Value]) -> Value:
    if op.name == "select_n":
        return _select(values)
    decided = _decided(op, values)
    live = reduce(operator.or_, (value.live for value in values)) & ~decided
    if live.all():
        return Value(live, np.zeros(live.shape, np.float32))
    constant = _constants(op, [value.constant for value in values])
    return Value(live, np.where(decided, values[0].constant, constant) if op.name in ("div", "rem") else constant)


def _decided(op: Operation, values: Sequence[Value]) -> Broadcastable:
    """Flags of entries that one operand alone decides: 0 times anything, 0 by anything, false and, true or anything."""
    if op.name in ("div", "rem"):
        return ~values[0].live & (values[0].constant == 0) & values[1].live
    if op.name in ("mul", "and") or (op.name == "or" and op.dtype == bool):
        return reduce(operator.or_, (~value.live & (value.constant == (op.name == "or")) for value in values))
    return np.zeros((), bool)


def _select(values: Sequence[Value]) -> Value:
    which, *cases = values
    common = np.broadcast_shapes(*(value.live.shape for value in values))
    chosen = np.broadcast_to(which.constant, common).astype(int)
    live, constant = (np.choose(chosen, [np.broadcast_to(case[i], common) for case in cases]) for i in (0, 1))
    # Cases that are the same constant need no choice.
    first = cases[0]
    same = reduce(operator.and_, (~(first.live | case.live) & (case.constant == first.constant) for case in cases))
    undecided = which.live & ~same
    return Value(live | undecided, np.where(undecided, np.zeros((), constant.dtype), constant))


def _passing(op: Operation) -> Passing:
    """All axes but those along which an operand of size 1 meets a larger one."""
    sizes = enumerate(op.shape)
    return {axis: [axis if shape and shape[axis] == size else None for shape in op.shapes] for axis, size in sizes}


def _applies(op: Operation, values: Sequence[Value]) -> bool:
    """Operands are scalars, or have the output's rank and size 1 on the other axes."""
    return all(
        not shape or (len(shape) == len(op.shape) and all(n in (1, m) for n, m in zip(shape, op.shape, strict=True)))
        for shape in op.shapes
    )


RULES = dict.fromkeys(ELEMENTWISE, passing_rule(_passing, _forward, _applies))
