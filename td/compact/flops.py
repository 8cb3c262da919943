"""FLOPs of convolutions and products, those within loops and branches included, and the summary of a compaction."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core
from jaxtyping import Array

from td.compact.analysis import Analysis
from td.compact.emit import Moved
from td.compact.indices import Shape, sized, sizes, width
from td.compact.program import Equation, Program
from td.compact.rules.base import Contraction
from td.compact.trace import abstract, default_branch, trace

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
    return sum(flops_of(e.name, e.params, *_shapes(program, e)) for e in program.equations)


def compacted_flops(program: Program, analysis: Analysis) -> tuple[int, int]:
    """Count the FLOPs of a program at the sizes of the example inputs, before and after."""
    before = after = 0
    for eqn_index, equation in enumerate(program.equations):
        shapes, shape = _shapes(program, equation)
        whole = flops_of(equation.name, equation.params, shapes, shape)
        kept = [analysis.kept[value] for value in equation.outputs]
        before += whole
        if eqn_index in analysis.frozen:
            after += whole if any(lines is not None for lines in kept) else 0
        elif whole and kept[0] is not None:
            used = _used(equation, shapes, analysis.contractions.get(eqn_index))
            after += flops_of(equation.name, equation.params, used, sizes(kept[0], shape))
    return before, after


def _shapes(program: Program, equation: Equation) -> tuple[list[Shape], Shape]:
    return [program.shape(value) for value in equation.inputs], program.shape(equation.outputs[0])


def flops_of(name: str, params: Mapping[str, Any], shapes: Sequence[Shape], shape: Shape) -> int:
    """Count the FLOPs of one equation."""
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
        inputs, outputs = ([getattr(v.aval, "shape", ()) for v in vs] for vs in (equation.invars, equation.outvars))
        total += flops_of(equation.primitive.name, equation.params, inputs, (*outputs, ())[0])
    return total


def _inner(params: Mapping[str, Any]) -> list[core.Jaxpr]:
    """The jaxprs that an equation runs; of a choice by platform the default alone."""
    chosen = default_branch(params)
    leaves = [chosen] if chosen is not None else jax.tree.leaves(list(params.values()))
    found = [leaf for leaf in leaves if isinstance(leaf, core.Jaxpr | core.ClosedJaxpr)]
    return [leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf for leaf in found]


def _used(equation: Equation, shapes: Sequence[Shape], sums: Contraction | None) -> Sequence[Shape]:
    """The operands' shapes with the contracted indices that are used."""
    narrowed = [list(shape) for shape in shapes]
    if sums is not None and equation.name == "dot_general":
        for line, left, right in zip(sums.used, *equation.params["dimension_numbers"][0], strict=True):
            narrowed[0][left] = narrowed[1][right] = width(line, shapes[0][left])
    elif sums is not None and equation.params.get("feature_group_count") == 1:
        axis = equation.params["dimension_numbers"].rhs_spec[1]
        narrowed[1][axis] = width(sums.used[0], shapes[1][axis])
    return narrowed


def summary(program: Program, analysis: Analysis, small: dict[str, Array], moved: Moved, flops: Sequence[int]) -> str:
    """A table of kernels and totals, then frozen operations and notes."""
    lines = [("kernel", "before", "after")]
    for value, (path, leaf) in zip(program.leaves, small.items(), strict=True):
        if len(shape := program.shape(value)) >= 2:
            lines.append((path, str(list(shape)), "same" if leaf.shape == shape else str(list(leaf.shape))))
    before = sum(math.prod(program.shape(value)) for value in program.leaves)
    constants = sum(array.size for array in moved.arrays.values())
    after = f"{sum(leaf.size for leaf in small.values()) + constants:,}"
    lines.append(("parameters", f"{before:,}", after + f", {constants:,} of them moved constants" * bool(constants)))
    lines.append(("FLOPs", f"{flops[0]:,}", f"{flops[1]:,}"))
    first, second = (max(len(line[column]) for line in lines) for column in range(2))
    table = [f"{line[0]:<{first}}  {line[1]:<{second}}  {line[2]}" for line in lines]
    return "\n".join([*table, *_notes(program, analysis)])


def _notes(program: Program, analysis: Analysis) -> Iterator[str]:
    """Frozen operations that have operands to reduce, loops of unknown length, lost derivatives, constant outputs."""
    reasons = [(program.equations[eqn_index], why) for eqn_index, why in sorted(analysis.frozen.items())]
    frozen = [f"{e.name} {why}" for e, why in reasons if any(program.shape(value) for value in e.inputs)]
    loops = [name for e in program.equations for name in _counted_once(e.name, e.params)]
    notes = [
        ("frozen", frozen),
        ("FLOPs of one iteration", loops),
        ("custom derivative replaced by that of its equations", program.lost),
    ]
    for title, names in notes:
        for name, count in Counter(names).items():
            yield f"{title}: {name}" + (f" ({count} times)" if count > 1 else "")
    for value in program.outputs:
        if not analysis.values[value].known:
            live, shape = analysis.values[value].live, program.shape(value)
            live = sized(live, [axis for axis, size in enumerate(live.shape) if size > 1] or [len(shape) - 1], shape)
            if not live.all():
                yield f"{(~live).sum()} of {live.size} outputs no longer depend on the inputs"


def _counted_once(name: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Names of the loops of unknown length in an equation."""
    if name in COUNTED_ONCE:
        yield name
    for jaxpr in _inner(params):
        for equation in jaxpr.eqns:
            yield from _counted_once(equation.primitive.name, equation.params)
