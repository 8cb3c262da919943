"""Multiplications and additions of convolutions and products, those within loops and branches included."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from td.compact.emit import Layout
from td.compact.program import Equation, Program
from td.compact.rules.base import sizes
from td.compact.trace import abstract, default_branch, trace
from td.compact.values import KeptIndices, Shape

COUNTED_ONCE = ("while", "pallas_call")
"""Loops whose number of iterations is unknown."""


def count_flops(function: Callable[..., Any], params: Any, *inputs: Any) -> int:
    """Count those of a function by shapes alone.

    A scan counts once per iteration, a `cond` by its most expensive branch, a `while_loop` once.

    Example:
      >>> import jax.numpy as jnp
      >>> count_flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
      60
    """
    program = trace(function, abstract(params), abstract(inputs))
    return sum(_flops(e.name, e.params, *_shapes(program, e)) for e in program.equations)


def compacted_flops(program: Program, layout: Layout) -> tuple[int, int]:
    """Count those of a program at the sizes of the example inputs, before and after."""
    before = after = 0
    for eqn_index, equation in enumerate(program.equations):
        shapes, shape = _shapes(program, equation)
        whole = _flops(equation.name, equation.params, shapes, shape)
        kept = [layout.kept[value] for value in equation.outputs]
        before += whole
        if eqn_index in layout.frozen:
            after += whole if any(lines is not None for lines in kept) else 0
        elif whole and kept[0] is not None:
            used = _used(equation, shapes, layout.used.get(eqn_index))
            after += _flops(equation.name, equation.params, used, sizes(kept[0], shape))
    return before, after


def counted_once(name: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Names of the loops of unknown length in an equation."""
    if name in COUNTED_ONCE:
        yield name
    for jaxpr in _inner(params):
        for equation in jaxpr.eqns:
            yield from counted_once(equation.primitive.name, equation.params)


def _shapes(program: Program, equation: Equation) -> tuple[list[Shape], Shape]:
    return [program.shape(value) for value in equation.inputs], program.shape(equation.outputs[0])


def _flops(name: str, params: Mapping[str, Any], shapes: Sequence[Shape], shape: Shape) -> int:
    if name == "dot_general":
        contracted = params["dimension_numbers"][0][0]
        return 2 * math.prod(shape) * math.prod(shapes[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        outer = params["dimension_numbers"].rhs_spec[0]
        return 2 * math.prod(shape) * math.prod(n for axis, n in enumerate(shapes[1]) if axis != outer)
    counts = [_flops_of_jaxpr(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        return max(counts)
    return sum(counts) * (params["length"] if name == "scan" else 1)


def _flops_of_jaxpr(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        shapes = [getattr(v.aval, "shape", ()) for v in (*equation.invars, *equation.outvars)]
        inputs = len(equation.invars)
        total += _flops(equation.primitive.name, equation.params, shapes[:inputs], (*shapes[inputs:], ())[0])
    return total


def _inner(params: Mapping[str, Any]) -> list[core.Jaxpr]:
    """The jaxprs that an equation runs; of a choice by platform the default alone."""
    chosen = default_branch(params)
    leaves = [chosen] if chosen is not None else jax.tree.leaves(list(params.values()))
    found = [leaf for leaf in leaves if isinstance(leaf, core.Jaxpr | core.ClosedJaxpr)]
    return [leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf for leaf in found]


def _used(equation: Equation, shapes: Sequence[Shape], used: KeptIndices | None) -> Sequence[Shape]:
    """The operands' shapes with the contracted indices that are used."""
    narrowed = [list(shape) for shape in shapes]
    if used is not None and equation.name == "dot_general":
        for line, left, right in zip(used, *equation.params["dimension_numbers"][0], strict=True):
            narrowed[0][left] = narrowed[1][right] = shapes[0][left] if line is None else len(line)
    elif used is not None and equation.params["feature_group_count"] == 1:
        axis = equation.params["dimension_numbers"].rhs_spec[1]
        narrowed[1][axis] = shapes[1][axis] if used[0] is None else len(used[0])
    return narrowed
