"""Elementwise functions with a custom derivative, rebuilt for arrays of other sizes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td.program.equations import ELEMENTWISE, Program
from td.program.indices import Shape

SPREAD = ("broadcast_in_dim", "reshape", "squeeze")
"""Operations on a scalar that are left out: it broadcasts to any size."""


def resizable(equation: Any, bind: Callable[..., Any], flatten: Callable[..., Program]) -> Callable[..., Array] | None:
    """Rebuild a custom call, traced at some shapes, for any; None unless value and derivative are elementwise."""
    operands, outputs = ([atom.aval for atom in atoms] for atoms in (equation.invars, equation.outvars))
    forwards = equation.primitive.name == "custom_jvp_call"
    shapes = {operand.shape for operand in operands} - {()}
    if len(outputs) != 1 or shapes != {outputs[0].shape} - {()} or not jnp.issubdtype(outputs[0].dtype, jnp.inexact):
        return None
    moves = [jnp.issubdtype(operand.dtype, jnp.inexact) for operand in operands]

    def derivative(operands: Sequence[Any], others: Sequence[Any]) -> Any:
        """The output's tangent from those of floating operands, or their cotangents from the output's."""
        primals = _moving(operands, moves)

        def function(*moving: Any) -> Any:
            rest = iter(moving)
            return bind(*(next(rest) if does else o for o, does in zip(operands, moves, strict=True)))[0]

        return jax.jvp(function, primals, others)[1] if forwards else jax.vjp(function, *primals)[1](*others)

    try:
        slope = jax.make_jaxpr(derivative)(operands, _moving(operands, moves) if forwards else outputs)
    except Exception:  # nobody differentiates by a rule that fails
        return None
    programs = flatten(equation.params["call_jaxpr"]), flatten(slope)
    if not all(_is_elementwise(program, tuple(outputs[0].shape)) for program in programs):
        return None
    return _rebuilt(*programs, moves, forwards)


def _moving(operands: Sequence[Any], moves: Sequence[bool]) -> list[Any]:
    return [operand for operand, does in zip(operands, moves, strict=True) if does]


def _rebuilt(value: Program, derivative: Program, moves: Sequence[bool], forwards: bool) -> Callable[..., Array]:
    def call(*operands: Array) -> Array:
        return _run(value, operands)[0]

    def tangent(operands: Sequence[Array], tangents: Sequence[Any]) -> tuple[Array, Array]:
        return rebuilt(*operands), _run(derivative, (*operands, *_moving(tangents, moves)))[0]

    def cotangents(operands: Sequence[Array], cotangent: Array) -> tuple[Array | None, ...]:
        found = iter(_run(derivative, (*operands, cotangent)))
        return tuple(next(found) if does else None for does in moves)

    rebuilt: Any = (jax.custom_jvp if forwards else jax.custom_vjp)(call)
    if forwards:
        rebuilt.defjvp(tangent)
    else:
        rebuilt.defvjp(lambda *operands: (rebuilt(*operands), operands), cotangents)
    return rebuilt


def _is_elementwise(program: Program, shape: Shape) -> bool:
    """Test for a function of scalars and of the same entry of arrays of this shape."""
    kinds = {value: "scalar" if not program.shape(value) else "entry" for value in program.inputs}
    kinds |= {value: "array" if program.shape(value) else "scalar" for value in program.numbers}
    for equation in program.equations:
        found = {kinds[value] for value in equation.inputs} - {"scalar"}
        spread = equation.name in SPREAD and not found
        elementwise = equation.name in ELEMENTWISE and found in (set(), {"entry"}, {"sum"})
        if equation.name == "reduce_sum" and found == {"entry"} and len(equation.params["axes"]) == len(shape):
            found = {"sum"}  # a scalar's cotangent
        elif not (spread or elementwise):
            return False
        kinds[equation.outputs[0]] = found.pop() if found else "scalar"
    return True


def _run(program: Program, operands: Sequence[Array]) -> list[Array]:
    """Run an elementwise program on arrays of another shape."""
    shape = next((operand.shape for operand in operands if operand.ndim), ())
    known = {**program.numbers, **dict(zip(program.inputs, operands, strict=True))}

    def full(value: int) -> Array:
        return jnp.broadcast_to(known[value], shape) if program.shape(value) else jnp.asarray(known[value])

    for equation in program.equations:
        spread = equation.name in SPREAD
        known[equation.outputs[0]] = (
            known[equation.inputs[0]] if spread else equation.bind(*map(full, equation.inputs), **equation.params)
        )
    return [full(value) for value in program.outputs]
