"""Entries computed although not needed: widths rounded up, and values whose constants would outweigh the savings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from td.compact.analysis import Analysis, Forced, operation
from td.compact.emit import Moved
from td.compact.rules.base import AxisIndices, Operation
from td.compact.rules.conv import channel_axes
from td.program.equations import Equation, Program
from td.program.indices import Broadcastable, flags_of, on_line, others
from td.program.links import sides_of


def rounded(program: Program, analysis: Analysis, multiple: int) -> Forced:
    """Force the strongest removed indices until widths are multiples: first outputs, then inputs that are present."""
    if multiple == 1:
        return analysis.forced
    values, contracted = dict(analysis.forced.values), dict(analysis.forced.contracted)
    units = list(_units(program, analysis))
    for equation, kernel, (axis, outer, _, _) in units:
        kept = analysis.kept[equation.outputs[0]]
        line = None if kept is None else kept[axis]
        if more := _strongest(line, _norms(kernel, outer), multiple):
            values[equation.outputs[0]] = added(values.get(equation.outputs[0], {}), axis, more)
    if values != analysis.forced.values:
        return analysis.forced._replace(values=values, contracted=contracted)
    for equation, kernel, (_, _, inner, channels) in units:
        norms, kept = _norms(kernel, inner), analysis.kept[equation.inputs[0]]
        present = flags_of(() if kept is None else kept[channels], len(norms))
        line = analysis.contractions[equation.number].used[0]
        if more := _strongest(line, norms + present * (norms.max() + 1), multiple):
            contracted[equation.number] = added(contracted.get(equation.number, {}), 0, more)
    return analysis.forced._replace(values=values, contracted=contracted)


def _units(program: Program, analysis: Analysis) -> Iterator[tuple[Equation, Broadcastable, tuple[int, int, int, int]]]:
    """Convolutions and products with known kernels, and their `_unit_axes`."""
    every = program.every
    for equation in (every[number] for number in analysis.contractions):
        axes = _unit_axes(operation(program, equation, analysis.sizes))
        if axes is not None and analysis.values[equation.inputs[1]].known:
            kernel = analysis.values[equation.inputs[1]].constant  # 0 where it differs between the iterations of a loop
            yield equation, np.broadcast_to(kernel, program.shape(equation.inputs[1])), axes


def _unit_axes(op: Operation) -> tuple[int, int, int, int] | None:
    """The axes of units in the output and in the kernel, of inputs in the kernel and in the input; None if unclear."""
    if op.name == "conv_general_dilated":
        channels, axis, inner, outer = channel_axes(op)
        return (axis, outer, inner, channels) if op.params["feature_group_count"] == 1 else None
    if op.name != "dot_general":
        return None
    left, right = sides_of(op.params["dimension_numbers"], op.shapes)
    if len(left.contracted) != 1 or len(right.free) != 1 or left.batch:
        return None
    return len(op.shape) - 1, right.free[0], right.contracted[0], left.contracted[0]


def _norms(kernel: Broadcastable, axis: int) -> Broadcastable:
    return np.sqrt(np.square(kernel, dtype=np.float64).sum(tuple(others(kernel.ndim, axis))))


def _strongest(line: Broadcastable | None, importance: Broadcastable, multiple: int) -> list[int]:
    """The most important of the missing indices, as many as a multiple needs, or all there are."""
    missing = np.flatnonzero(~flags_of(line, len(importance)))
    order = missing[np.argsort(-importance[missing], kind="stable")]
    return order[: 0 if line is None else -len(line) % multiple].tolist()


def added(lines: AxisIndices, axis: int, indices: Sequence[int]) -> AxisIndices:
    """Join indices to those of an axis."""
    return {**lines, axis: sorted({*lines.get(axis, ()), *indices})}


def grown(program: Program, small: Sequence[Any], moved: Moved) -> bool:
    """Compare the number of entries in smaller leaves and moved constants with that of the leaves before."""
    before = sum(math.prod(program.shape(value)) for value in program.leaves)
    return sum(array.size for array in (*small, *moved.arrays.values())) > before


def recomputed(program: Program, analysis: Analysis, moved: Moved) -> Forced:
    """Force the entries behind the largest constants. Repeated, this restores the network without constants."""
    values, largest = dict(analysis.forced.values), max(array.size for array in moved.arrays.values())
    for key in (key for key, array in moved.arrays.items() if 2 * array.size > largest):
        for value in _sources(program, key):
            constant = analysis.values[value].constant
            if constant.any() and not analysis.values[value].known:
                values[value] = _with_constants(values.get(value), constant)
    return analysis.forced._replace(values=values)


def _sources(program: Program, key: str) -> Sequence[int]:
    """The value that `5/0/1`, `output 2/1` or `7.0 output 2` (of a body) fills up; all that `5/bias` has absorbed."""
    place, _, rest = key.partition("/")
    body, output, index = place.rpartition("output ")
    if body:
        number, _, within = body.strip().partition(".")
        return [program.every[int(number)].bodies[int(within)].outputs[int(index)]]
    if output:
        return [program.outputs[int(index)]]
    inputs, operand = program.every[int(place)].inputs, rest.partition("/")[0].partition(".")[0]
    return [inputs[int(operand)]] if operand.isdigit() else inputs


def _with_constants(lines: Mapping[int, Sequence[int]] | None, constant: Broadcastable) -> AxisIndices:
    """Add the indices of constants other than zero, along the axis that has the fewest of them."""
    found = {a: on_line(constant != 0, a, n).nonzero()[0].tolist() for a, n in enumerate(constant.shape) if n > 1}
    if not found or lines == {}:
        return {}
    axis = min(found, key=lambda a: len(found[a]) / constant.shape[a])
    return added(lines or {}, axis, found[axis])
