"""A function as numbered values and the equations between them; layers that it stacks itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from td.program.indices import others

CUSTOM = ("custom_jvp_call", "custom_vjp_call")
ELEMENTWISE = (
    *CUSTOM,
    *"""
    abs add add_any div integer_pow max min mul neg pow rem sign square sub
    ceil clamp convert_element_type floor nextafter reduce_precision round
    cbrt exp exp2 expm1 log log1p logistic rsqrt sqrt
    acos asin atan atan2 cos sin tan acosh asinh atanh cosh sinh tanh
    bessel_i0e bessel_i1e digamma erf erf_inv erfc igamma igammac lgamma
    and eq eq_to ge gt is_finite le le_to lt lt_to ne not or xor
    population_count shift_left shift_right_arithmetic shift_right_logical
    bitcast_convert_type clz copy copy_p imag real select_n stop_gradient
    """.split(),  # noqa: SIM905
)
"""Elementwise operations."""


def is_key(dtype: Any) -> bool:
    """Test for keys of random numbers, which stay opaque."""
    return bool(jax.dtypes.issubdtype(dtype, jax.dtypes.extended))


class Equation(NamedTuple):
    """One operation on numbered values."""

    name: str
    bind: Callable[..., Any]
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bodies: "tuple[Body, ...]" = ()
    number: int = 0  # its place in `Program.every`


class Body(NamedTuple):
    """Equations that a loop runs, or a choice; their values are numbered with those of the program around them."""

    equations: list[Equation]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Program(NamedTuple):
    """Equations in order; `avals` and `numbers` include those of bodies."""

    equations: list[Equation]
    avals: dict[int, Any]  # shape and dtype of every value
    numbers: dict[int, Any]  # arrays that are written in the function
    leaves: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    out_tree: Any
    lost: list[str]  # functions whose custom derivative became that of their equations

    def shape(self, value: int) -> tuple[Any, ...]:
        return tuple(self.avals[value].shape)

    @property
    def every(self) -> list[Equation]:
        """The equations, each before those of its bodies."""
        return list(every_of(self.equations))

    @property
    def structure(self) -> tuple[Any, ...]:
        """Equal for two programs that differ in sizes alone."""
        ranks = tuple(len(aval.shape) for aval in self.avals.values())
        bodies = [body for equation in self.every for body in equation.bodies]
        ends = [(len(body.equations), body.inputs, body.outputs) for body in bodies]
        return [(e.name, e.inputs, e.outputs, len(e.bodies)) for e in self.every], ends, self.outputs, ranks


def source(made: Mapping[int, Equation], value: int, axis: int) -> tuple[int, int]:
    """The value and its axis before transposes and conversions of the dtype."""
    while value in made and made[value].name in ("transpose", "convert_element_type"):
        axis = made[value].params.get("permutation", {axis: axis})[axis]
        value = made[value].inputs[0]
    return value, axis


def every_of(equations: Sequence[Equation]) -> Iterator[Equation]:
    """Equations, each before those of its bodies."""
    for equation in equations:
        yield equation
        for body in equation.bodies:
            yield from every_of(body.equations)


Flat = Any
"""The equations and values inlined so far, a `_Flat` of `td.program.trace`."""


def layers(flat: Flat, value: int, axis: int) -> list[int] | None:
    """The values that are stacked along an axis, before transposes and conversions; None of another value."""
    value, axis = source(flat.made, value, axis)
    stack, shape = flat.made.get(value), flat.avals[value].shape
    if stack is None or stack.name != "concatenate" or stack.params["dimension"] != axis:
        return None
    rest = tuple(others(len(shape), axis))
    made = [e for part in stack.inputs if (e := flat.made.get(part)) is not None and e.name == "broadcast_in_dim"]
    parts = [e.inputs[0] for e in made if e.params["broadcast_dimensions"] == rest]
    whole = len(parts) == shape[axis] and all(flat.avals[v].shape == (*shape[:axis], *shape[axis + 1 :]) for v in parts)
    return parts if whole else None


def selected_layer(flat: Flat, value: int, axis: int) -> list[int] | None:
    """One of the values that are stacked, where a slice selects it."""
    cut = flat.made.get(value)
    if cut is None or cut.name != "slice" or (parts := layers(flat, cut.inputs[0], axis)) is None:
        return None
    shape = flat.avals[cut.inputs[0]].shape
    if flat.avals[value].shape != (*shape[:axis], 1, *shape[axis + 1 :]):
        return None
    return [_moved_layer(flat, cut.inputs[0], axis, parts[cut.params["start_indices"][axis]])]


def _moved_layer(flat: Flat, value: int, axis: int, part: int) -> int:
    """Transpose and convert a layer as the stack of all."""
    made = flat.made[value]
    if made.name == "concatenate":
        return part
    order, params = made.params.get("permutation"), made.params
    if order is not None:
        axis = order[axis]
        params = {"permutation": tuple(other - (other > axis) for other in order if other != axis)}
    part = _moved_layer(flat, made.inputs[0], axis, part)
    return flat.traced(lambda array: made.bind(array, **params), [part])[0]
