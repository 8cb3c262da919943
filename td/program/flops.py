"""FLOPs of convolutions and products, those within loops and branches included."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from td.program.equations import Equation, Program
from td.program.indices import Shape
from td.program.trace import abstract, default_branch, trace

COUNTED_ONCE = ("while", "pallas_call")
"""Loops whose number of iterations is unknown."""


def count_flops(function: Callable[..., Any], params: Any, *inputs: Any) -> int:
    """Count the FLOPs of a function by shapes alone.

    A scan counts once per iteration, a `cond` by its most expensive branch, a `while_loop` once.

    Example:
      >>> import jax.numpy as jnp
      >>> count_flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
      60
    """
    program = trace(function, abstract(params), abstract(inputs))
    return sum(flops_of(e.name, e.params, *shapes_of(program, e)) for e in program.equations)


def shapes_of(program: Program, equation: Equation) -> tuple[list[Shape], Shape]:
    """The shapes of the operands and of the first output."""
    return [program.shape(value) for value in equation.inputs], program.shape(equation.outputs[0])


def flops_of(name: str, params: Mapping[str, Any], shapes: Sequence[Shape], shape: Shape) -> int:
    """Count the FLOPs of one equation."""
    if name == "dot_general":
        contracted = params["dimension_numbers"][0][0]
        return 2 * math.prod(shape) * math.prod(shapes[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        outer = params["dimension_numbers"].rhs_spec[0]
        return 2 * math.prod(shape) * math.prod(n for axis, n in enumerate(shapes[1]) if axis != outer)
    return flops_of_bodies(name, params, [_flops_of_jaxpr(jaxpr) for jaxpr in inner(params)])


def flops_of_bodies(name: str, params: Mapping[str, Any], counts: Sequence[int]) -> int:
    """The FLOPs of a loop or choice from those of its bodies."""
    if name == "cond":
        return max(counts)
    return sum(counts) * (params["length"] if name == "scan" else 1)


def _flops_of_jaxpr(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inputs, outputs = ([getattr(v.aval, "shape", ()) for v in vs] for vs in (equation.invars, equation.outvars))
        total += flops_of(equation.primitive.name, equation.params, inputs, (*outputs, ())[0])
    return total


def inner(params: Mapping[str, Any]) -> list[core.Jaxpr]:
    """The jaxprs that an equation runs; of a choice by platform the default alone."""
    chosen = default_branch(params)
    leaves = [chosen] if chosen is not None else jax.tree.leaves(list(params.values()))
    found = [leaf for leaf in leaves if isinstance(leaf, core.Jaxpr | core.ClosedJaxpr)]
    return [leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf for leaf in found]


def counted_once(name: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Names of the loops of unknown length in an equation."""
    if name in COUNTED_ONCE:
        yield name
    for jaxpr in inner(params):
        for equation in jaxpr.eqns:
            yield from counted_once(equation.primitive.name, equation.params)
