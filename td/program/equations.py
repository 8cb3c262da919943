"""A function as numbered values and the equations between them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

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
