"""What a compaction has done, as a table."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from td.compact.analyse import Analysis, operation
from td.compact.emit import Layout
from td.compact.linear import flops as flops_of
from td.compact.plan import Moved
from td.compact.rule import sizes
from td.compact.trace import Program
from td.compact.values import Kept


def report(
    program: Program,
    paths: Sequence[str],
    flops: tuple[int, int],
    analysis: Analysis,
    small: Sequence[Any],
    moved: Moved,
) -> str:
    """Leaves that have shrunk, what was frozen and why, totals."""
    lines = [("kernel", "before", "after")]
    for path, value, leaf in zip(paths, program.leaves, small, strict=True):
        shape = program.shape(value)
        if len(shape) >= 2:
            lines.append((path, str(list(shape)), "same" if leaf.shape == shape else str(list(leaf.shape))))
    before = sum(math.prod(program.shape(value)) for value in program.leaves)
    constants = sum(array.size for array in (*moved.trained.values(), *moved.fixed.values()))
    after = sum(leaf.size for leaf in small) + constants
    lines.append(
        ("parameters", f"{before:,}", f"{after:,}" + (f", {constants:,} of them moved constants" * bool(constants)))
    )
    lines.append(("FLOPs", f"{flops[0]:,}", f"{flops[1]:,}"))
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    table = [f"{line[0]:<{widths[0]}}  {line[1]:<{widths[1]}}  {line[2]}" for line in lines]
    return "\n".join([*table, *_frozen(program, analysis)])


def _frozen(program: Program, analysis: Analysis) -> list[str]:
    """The frozen operations, but for those on nothing that could be removed."""
    meeting = {place for place in analysis.frozen if any(program.shape(v) for v in program.equations[place].inputs)}
    found = Counter(f"{program.equations[place].name} {analysis.frozen[place]}" for place in sorted(meeting))
    return [f"frozen: {what}" + (f" ({count} times)" if count > 1 else "") for what, count in found.items()]


def count_flops(program: Program, layout: Layout) -> tuple[int, int]:
    """Of convolutions and products, at the sizes of the example inputs, before and after."""
    before = after = 0
    for place, equation in enumerate(program.equations):
        if equation.name in ("conv_general_dilated", "dot_general"):
            here, kept = operation(program, equation, layout.sizes), layout.kept[equation.outputs[0]]
            before += flops_of(here, here.shapes, here.shape)
            if kept is not None:
                after += flops_of(here, _used(here, layout.used.get(place)), sizes(kept, here.shape))
    return before, after


def _used(here: Any, used: Kept | None) -> list[tuple[int, ...]]:
    """The operands' shapes with the contracted indices that are used."""
    shapes = [list(shape) for shape in here.shapes]
    if used is not None and here.name == "dot_general":
        for line, left, right in zip(used, *here.params["dimension_numbers"][0], strict=True):
            shapes[0][left] = shapes[1][right] = shapes[0][left] if line is None else len(line)
    elif used is not None and here.params["feature_group_count"] == 1:
        axis = here.params["dimension_numbers"].rhs_spec[1]
        shapes[1][axis] = shapes[1][axis] if used[0] is None else len(used[0])
    return [tuple(shape) for shape in shapes]
