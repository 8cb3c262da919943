"""Functions timed side by side, interleaved, so that a slow moment of the machine affects them all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from td.compact.speed import interleaved
from td.errors import check_at_least
from td.io.progress import progress

Call = Callable[[], Any]


class Timing(NamedTuple):
    """One timed function."""

    name: str
    seconds: float  # median of one call
    low: float  # lower quartile
    high: float  # upper quartile
    ratio: float  # median over rounds of its time over that of the first function in the same round
    calls: int  # timed calls


def side_by_side(cases: Mapping[str, Call], repeats: int, title: str = "") -> list[Timing]:
    """Time functions, interleaved; a first round, which compiles, is left out."""
    check_at_least("timing_repeats", repeats, 1)
    taken = interleaved(cases, progress(range(repeats + 1), desc=title, unit="round"))
    first = np.array(next(iter(taken.values())))
    found = []
    for name, seconds in taken.items():
        low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
        found.append(Timing(name, median, low, high, float(np.median(np.array(seconds) / first)), repeats))
    return found


def as_markdown(lines: Sequence[Mapping[str, str]], names: int = 1) -> str:
    """Format lines `{heading: cell}` as a Markdown table, the first columns to the left."""
    align = ["left"] * names + ["right"] * (len(lines[0]) - names)
    return str(tabulate(lines, "keys", "github", disable_numparse=True, colalign=align))


def as_table(timings: Sequence[Timing], unit: str) -> str:
    """Format the timings of one comparison."""
    return as_markdown([{**times(t), unit: f"{t.ratio:.2f}", "n": str(t.calls)} for t in timings])


def times(timing: Timing) -> dict[str, str]:
    """Format a name, a median and quartiles."""
    low, median, high = (f"{1e3 * value:.2f}" for value in (timing.low, timing.seconds, timing.high))
    return {"": timing.name, "median ms": median, "quartiles": f"{low} to {high}"}
