"""Constants that would take more numbers than their removal saves are computed, as before."""

import math
from collections.abc import Sequence
from typing import Any

from td.compact.analysis import Analysis, Forced
from td.compact.plan import Moved
from td.compact.program import Program
from td.compact.rules.base import AxisIndices
from td.compact.values import Broadcastable, on_line


def grown(program: Program, small: Sequence[Any], moved: Moved) -> bool:
    """Compare the number of entries in smaller leaves and moved constants with that of the leaves before."""
    before = sum(math.prod(program.shape(value)) for value in program.leaves)
    return sum(array.size for array in (*small, *moved.arrays.values())) > before


def recomputed(program: Program, analysis: Analysis, moved: Moved, forced: Forced) -> Forced:
    """Pin the entries behind the largest constants. Repeated, this leads to the network before, without constants."""
    values, largest = dict(forced.values), max(array.size for array in moved.arrays.values())
    for key in (key for key, array in moved.arrays.items() if 2 * array.size > largest):
        for value in _sources(program, key):
            constant = analysis.values[value].constant
            if constant.any() and not analysis.values[value].known:
                values[value] = _added(values.get(value), constant)
    return forced._replace(values=values)


def _sources(program: Program, key: str) -> Sequence[int]:
    """Values of a constant: the one that `5/0/1` or `output 2/1` fills up, all operands that `5/bias` has absorbed."""
    eqn_index, _, rest = key.partition("/")
    if not eqn_index.isdigit():
        return [program.outputs[int(eqn_index.removeprefix("output "))]]
    inputs, operand = program.equations[int(eqn_index)].inputs, rest.partition("/")[0]
    return [inputs[int(operand)]] if operand.isdigit() else inputs


def _added(lines: AxisIndices | None, constant: Broadcastable) -> AxisIndices:
    """The indices where a constant is not zero as well, along the axis that has the fewest of them."""
    found = {a: on_line(constant != 0, a, n).nonzero()[0].tolist() for a, n in enumerate(constant.shape) if n > 1}
    if not found or lines == {}:
        return {}
    axis = min(found, key=lambda a: len(found[a]) / constant.shape[a])
    lines = lines or {}
    return {**lines, axis: sorted({*lines.get(axis, ()), *found[axis]})}
