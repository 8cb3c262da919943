"""Several functions timed side by side, in turns, so that a slow moment of the machine meets them all."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from tabulate import tabulate

from td.errors import check_at_least
from td.io.progress import progress

Call = Callable[[], Any]


class Timing(NamedTuple):
    """One function, timed."""

    name: str  # of the function
    seconds: float  # median of one call
    low: float  # lower quartile
    high: float  # upper quartile
    ratio: float  # median over the turns of its time over that of the first function in the same turn
    calls: int  # how many were timed


def side_by_side(cases: Mapping[str, Call], calls: int, title: str = "") -> list[Timing]:
    """Time functions in turns; a first turn that compiles is left out."""
    check_at_least("calls", calls, 1)
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in progress(range(calls + 1), desc=title, unit="turn"):
        # In another order at every turn: what runs after a large function finds its caches and its memory in disorder.
        for name in np.random.default_rng(turn).permutation(list(cases)):
            start = time.perf_counter()
            jax.block_until_ready(cases[name]())
            if turn:
                taken[name].append(time.perf_counter() - start)
    first = np.array(next(iter(taken.values())))
    found = []
    for name, seconds in taken.items():
        low, median, high = (float(value) for value in np.percentile(seconds, (25, 50, 75)))
        found.append(Timing(name, median, low, high, float(np.median(np.array(seconds) / first)), calls))
    return found


def as_table(timings: list[Timing], unit: str) -> str:
    """Align the timings of one comparison.

    Example:
      >>> print(as_table([Timing("copy", 0.002, 0.002, 0.0025, 1.0, 9)], "copies"))
      |      |   median ms |    quartiles |   copies |   n |
      |------|-------------|--------------|----------|-----|
      | copy |        2.00 | 2.00 to 2.50 |     1.00 |   9 |
    """
    lines = [
        (t.name, f"{1e3 * t.seconds:.2f}", f"{1e3 * t.low:.2f} to {1e3 * t.high:.2f}", f"{t.ratio:.2f}", str(t.calls))
        for t in timings
    ]
    heads = ("", "median ms", "quartiles", unit, "n")
    return tabulate(lines, heads, "github", disable_numparse=True, colalign=("left", *["right"] * 4))
