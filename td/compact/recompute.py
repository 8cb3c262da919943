"""Constants that would take more numbers than their removal saves are computed, as before."""

import math
from collections.abc import Sequence
from typing import Any

from td.compact.analyse import Analysis, Pins
from td.compact.plan import Moved
from td.compact.program import Program
from td.compact.rule import Lines
from td.compact.values import Small, on_line


def grown(program: Program, small: Sequence[Any], moved: Moved) -> bool:
    """Compare the number of entries in smaller leaves and moved constants with that of the leaves before."""
    before = sum(math.prod(program.shape(value)) for value in program.leaves)
    return sum(array.size for array in (*small, *moved.arrays.values())) > before


def recomputed(program: Program, analysis: Analysis, moved: Moved, pins: Pins) -> Pins:
    """Pin the entries behind the largest constants. Repeated, this leads to the network before, without constants."""
    values, largest = dict(pins.values), max(array.size for array in moved.arrays.values())
    for key in (key for key, array in moved.arrays.items() if 2 * array.size > largest):
        for value in _sources(program, key):
            constant = analysis.values[value].constant
            if constant.any() and not analysis.values[value].known:
                values[value] = _added(values.get(value), constant)
    return pins._replace(values=values)


def _sources(program: Program, key: str) -> Sequence[int]:
    """Values of a constant: the one that `5/0/1` or `output 2/1` fills up, all operands that `5/bias` has absorbed."""
    place, _, rest = key.partition("/")
    if not place.isdigit():
        return [program.outputs[int(place.removeprefix("output "))]]
    inputs, operand = program.equations[int(place)].inputs, rest.partition("/")[0]
    return [inputs[int(operand)]] if operand.isdigit() else inputs


def _added(lines: Lines | None, constant: Small) -> Lines:
    """The indices where a constant is not zero as well, along the axis that has the fewest of them."""
    found = {a: on_line(constant != 0, a, n).nonzero()[0].tolist() for a, n in enumerate(constant.shape) if n > 1}
    if not found or lines == {}:
        return {}
    axis = min(found, key=lambda a: len(found[a]) / constant.shape[a])
    lines = lines or {}
    return {**lines, axis: sorted({*lines.get(axis, ()), *found[axis]})}
