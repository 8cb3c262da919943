"""Operations that act entry by entry: the operation itself on the small arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule
from td.compact.values import Broadcastable, KeptIndices, Value, any_over, on_host

ARITHMETIC = ("abs", "add", "div", "integer_pow", "max", "min", "mul", "neg", "pow", "rem", "sign", "square", "sub")
ROUNDING = ("ceil", "clamp", "convert_element_type", "floor", "nextafter", "reduce_precision", "round")
EXPONENTIAL = ("cbrt", "exp", "exp2", "expm1", "log", "log1p", "logistic", "rsqrt", "sqrt")
CIRCULAR = ("acos", "asin", "atan", "atan2", "cos", "sin", "tan")
HYPERBOLIC = ("acosh", "asinh", "atanh", "cosh", "sinh", "tanh")
SPECIAL = ("bessel_i0e", "bessel_i1e", "digamma", "erf", "erf_inv", "erfc", "igamma", "igammac", "lgamma")
LOGIC = (
    "and",
    "eq",
    "eq_to",
    "ge",
    "gt",
    "is_finite",
    "le",
    "le_to",
    "lt",
    "lt_to",
    "ne",
    "not",
    "or",
    "xor",
)
BITS = ("population_count", "shift_left", "shift_right_arithmetic", "shift_right_logical")
CHOICE = ("copy", "copy_p", "imag", "real", "select_n", "stop_gradient")
CUSTOM = ("custom_jvp_call", "custom_vjp_call")
NAMES = (
    *("add_any", *ARITHMETIC, *ROUNDING, *EXPONENTIAL, *CIRCULAR, *HYPERBOLIC, *SPECIAL),
    *(*LOGIC, *BITS, *CHOICE, *CUSTOM),
)

ON_HOST: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "square": np.square,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "tanh": np.tanh,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "stop_gradient": lambda x: x,
    "copy": lambda x: x,
}
"""What NumPy computes alike: no compilation for every shape."""


def _constants(operation: Operation, arrays: Sequence[Broadcastable]) -> Broadcastable:
    """The operation on small constant arrays."""
    floats = all(jnp.issubdtype(dtype, jnp.floating) for dtype in (*operation.dtypes, operation.dtype))
    with np.errstate(all="ignore"):
        if operation.name in ON_HOST and floats:
            return np.asarray(ON_HOST[operation.name](*arrays))
        if operation.name == "convert_element_type" and floats:
            return on_host(arrays[0].astype(operation.dtype))
        common = np.broadcast_shapes(*(array.shape for array in arrays))
        operands = [
            jnp.asarray(np.broadcast_to(array, common) if shape else array, dtype)
            for array, shape, dtype in zip(arrays, operation.shapes, operation.dtypes, strict=True)
        ]
        return on_host(operation.bind(*operands, **operation.params))


def _forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    live = np.asarray(np.logical_or.reduce(np.broadcast_arrays(*(value.live for value in values))))
    if operation.name == "select_n":
        return _select(values)
    live = live & ~_decided(operation, values)
    if live.all():
        return live, np.zeros(live.shape, np.float32)
    return live, _constants(operation, [value.constant for value in values])


def _decided(operation: Operation, values: Sequence[Value]) -> Broadcastable:
    """Where one operand alone decides: zero times anything, false and anything, true or anything."""
    if operation.name in ("mul", "and"):
        return np.logical_or(*(~value.live & (value.constant == 0) for value in values))
    if operation.name == "or" and operation.dtype == bool:
        return np.logical_or(*(~value.live & (value.constant == 1) for value in values))
    return np.zeros((), bool)


def _select(values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    which, *cases = values
    common = np.broadcast_shapes(*(a.shape for value in values for a in (value.live, value.constant)))
    operand_index = np.broadcast_to(which.constant, common).astype(int)
    live = np.choose(operand_index, [np.broadcast_to(case.live, common) for case in cases])
    constant = np.choose(operand_index, [np.broadcast_to(case.constant, common) for case in cases])
    # Cases that are the same constant need no choice.
    same = np.ones(common, bool)
    for case in cases:
        same &= ~(cases[0].live | case.live) & (case.constant == cases[0].constant)
    open_choice = which.live & ~same
    return live | open_choice, np.where(open_choice, np.zeros((), constant.dtype), constant)


def _stretched(operation: Operation, operand_index: int) -> list[int]:
    """Axes along which an operand of size 1 meets a larger one."""
    pairs = zip(operation.shapes[operand_index], operation.shape, strict=True)
    return [axis for axis, (size, whole) in enumerate(pairs) if size != whole]


def _backward(operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    del values, used
    return [
        any_over(computed, _stretched(operation, operand_index)) if shape else np.ones((), bool)
        for operand_index, shape in enumerate(operation.shapes)
    ]


def _emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operands = []
    for operand_index, shape in enumerate(operation.shapes):
        alone = _stretched(operation, operand_index) if shape else []
        lines = tuple(None if axis in alone else line for axis, line in enumerate(wanted))
        operands.append(request.demand(operand_index, lines if shape else ()))
    return operation.bind(*operands, **operation.params), wanted


def _applies(operation: Operation, values: Sequence[Value]) -> bool:
    """Operands are scalars, or as large as the output but for axes of size 1."""
    del values
    full = operation.shape
    return all(
        not shape or (len(shape) == len(full) and all(n in (1, m) for n, m in zip(shape, full, strict=True)))
        for shape in operation.shapes
    )


RULES = dict.fromkeys(NAMES, Rule(_forward, _backward, _emit, _applies))
