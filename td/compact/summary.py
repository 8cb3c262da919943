"""FLOPs before and after, and the summary of a compaction."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from jaxtyping import Array

from td.compact.analysis import Analysis
from td.compact.emit import Moved
from td.compact.rules.base import Contraction
from td.program.equations import Body, Equation, Program
from td.program.flops import counted_once, flops_of, flops_of_bodies, shapes_of
from td.program.indices import Shape, sized, sizes, width


def compacted_flops(program: Program, analysis: Analysis) -> tuple[int, int]:
    """Count the FLOPs of a program at the sizes of the example inputs, before and after."""
    whole = sum(flops_of(e.name, e.params, *shapes_of(program, e)) for e in program.equations)
    return whole, _after(program, analysis, program)


def _after(program: Program, analysis: Analysis, body: Program | Body) -> int:
    return sum(flops_left(program, analysis, equation) for equation in body.equations)


def flops_left(program: Program, analysis: Analysis, equation: Equation) -> int:
    """Count the FLOPs of one equation after compaction."""
    shapes, shape = shapes_of(program, equation)
    whole = flops_of(equation.name, equation.params, shapes, shape)
    kept = [lines for value in equation.outputs if (lines := analysis.kept[value]) is not None]
    if not whole or not kept:
        return 0
    if equation.bodies:
        inner = [_after(program, analysis, body) for body in equation.bodies]
        return flops_of_bodies(equation.name, equation.params, inner)
    if equation.number in analysis.frozen:
        return whole
    used = _used(equation, shapes, analysis.contractions.get(equation.number))
    return flops_of(equation.name, equation.params, used, sizes(kept[0], shape))


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
    every = program.every
    reasons = [(every[number], why) for number, why in sorted(analysis.frozen.items())]
    frozen = [f"{e.name} {why}" for e, why in reasons if any(program.shape(value) for value in e.inputs)]
    loops = [name for e in program.equations for name in counted_once(e.name, e.params)]
    notes = [
        ("frozen", frozen),
        ("FLOPs of one iteration", loops),
        ("custom derivative replaced by that of its equations", program.lost),
    ]
    if analysis.forced.note:
        yield analysis.forced.note
    for title, names in notes:
        for name, count in Counter(names).items():
            yield f"{title}: {name}" + (f" ({count} times)" if count > 1 else "")
    for value in program.outputs:
        if not analysis.values[value].known:
            live, shape = analysis.values[value].live, program.shape(value)
            live = sized(live, [axis for axis, size in enumerate(live.shape) if size > 1] or [len(shape) - 1], shape)
            if not live.all():
                yield f"{(~live).sum()} of {live.size} outputs no longer depend on the inputs"
