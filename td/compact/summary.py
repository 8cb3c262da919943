"""What a compaction has done, as a table."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from td.compact.analysis import Analysis
from td.compact.flops import counted_once
from td.compact.plan import Moved
from td.compact.program import Program
from td.compact.values import sized


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
    return "\n".join([*table, *_frozen(program, analysis), *_notes(program, analysis)])


def _frozen(program: Program, analysis: Analysis) -> list[str]:
    """The frozen operations, but for those on nothing that could be removed."""
    reasons = [(program.equations[eqn_index], why) for eqn_index, why in sorted(analysis.frozen.items())]
    found = Counter(f"{e.name} {why}" for e, why in reasons if any(program.shape(value) for value in e.inputs))
    return [f"frozen: {what}" + _times(count) for what, count in found.items()]


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _notes(program: Program, analysis: Analysis) -> Iterator[str]:
    """Loops of unknown length, custom derivatives that are lost, outputs that are constant."""
    loops = Counter(name for e in program.equations for name in counted_once(e.name, e.params))
    for name, count in loops.items():
        yield f"FLOPs of one iteration: {name}" + _times(count)
    for name, count in Counter(program.lost).items():
        yield f"custom derivative replaced by that of its equations: {name}" + _times(count)
    for value in program.outputs:
        if not analysis.values[value].known:
            live, shape = analysis.values[value].live, program.shape(value)
            varying = [axis for axis, size in enumerate(live.shape) if size > 1] or [len(shape) - 1]
            live = sized(live, varying, shape)
            if not live.all():
                yield f"{(~live).sum()} of {live.size} outputs no longer depend on the inputs"
