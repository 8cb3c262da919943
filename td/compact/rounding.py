"""Widths rounded up: the most important of the removed indices are put back."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from td.compact.analysis import Analysis, Forced, operation
from td.compact.program import Program
from td.compact.rules.base import AxisIndices, Operation
from td.compact.rules.conv import channel_axes, group_count
from td.compact.rules.dot import dimensions
from td.compact.sizes import Sizes
from td.compact.values import Broadcastable


def rounded(program: Program, sizes: Sizes, analysis: Analysis, forced: Forced, multiple: int) -> Forced:
    """Forced with which widths come nearer to multiples: all outputs first, then inputs, which prefer what is there."""
    values: dict[int, AxisIndices] = dict(forced.values)
    contracted: dict[int, AxisIndices] = dict(forced.contracted)
    for unit in _units(program, sizes, analysis):
        kept = analysis.kept[unit.output]
        line = None if kept is None else kept[unit.axis]
        if line is not None and len(line) % multiple:
            put = _more(line, _norms(unit.kernel, unit.kernel_outputs), multiple)
            values[unit.output] = _added(values.get(unit.output, {}), unit.axis, put)
    if values != forced.values:
        return Forced(values, contracted)
    for unit in _units(program, sizes, analysis):
        line = analysis.contractions[unit.eqn_index].used[0]
        if line is not None and len(line) % multiple:
            norms = _norms(unit.kernel, unit.kernel_inputs)
            kept = analysis.kept[unit.source]
            there = np.zeros(0, int) if kept is None else kept[unit.channel]
            present = np.ones(len(norms)) if there is None else np.isin(np.arange(len(norms)), there)
            put = _more(line, norms + present * (norms.max() + 1), multiple)
            contracted[unit.eqn_index] = _added(contracted.get(unit.eqn_index, {}), 0, put)
    return Forced(values, contracted)


class _Unit(NamedTuple):
    """A convolution or product with a known kernel, and the axes of what it counts."""

    eqn_index: int
    output: int
    source: int
    kernel: Broadcastable
    axis: int
    kernel_outputs: int
    kernel_inputs: int
    channel: int


def _units(program: Program, sizes: Sizes, analysis: Analysis) -> Iterator[_Unit]:
    for eqn_index in analysis.contractions:
        equation = program.equations[eqn_index]
        axes = _unit_axes(operation(program, equation, sizes))
        if axes is not None and analysis.values[equation.inputs[1]].known:
            kernel = analysis.values[equation.inputs[1]].constant
            yield _Unit(eqn_index, equation.outputs[0], equation.inputs[0], kernel, *axes)


def _unit_axes(operation: Operation) -> tuple[int, int, int, int] | None:
    """The axis of units of the output and of the kernel, of inputs of the kernel and of the input; None if unclear."""
    if operation.name == "conv_general_dilated":
        channels, axis, inner, outer = channel_axes(operation)
        return (axis, outer, inner, channels) if group_count(operation) == 1 else None
    if operation.name != "dot_general":
        return None
    batch, free, contracted = dimensions(operation)
    if len(contracted[0]) != 1 or len(free[1]) != 1 or batch[0]:
        return None
    return len(operation.shape) - 1, free[1][0], contracted[1][0], contracted[0][0]


def _added(lines: AxisIndices, axis: int, indices: Sequence[int]) -> AxisIndices:
    return {**lines, axis: sorted({*lines.get(axis, ()), *indices})}


def _norms(kernel: Broadcastable, axis: int) -> Broadcastable:
    return np.sqrt(np.square(kernel, dtype=np.float64).sum(tuple(a for a in range(kernel.ndim) if a != axis)))


def _more(line: Broadcastable, importance: Broadcastable, multiple: int) -> list[int]:
    """The most important indices that are missing, as many as lack, or all there are."""
    missing = np.setdiff1d(np.arange(len(importance)), line)
    order = missing[np.argsort(-importance[missing], kind="stable")]
    return [int(index) for index in order[: -len(line) % multiple]]
