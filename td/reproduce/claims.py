"""What the paper says of a table, as comparisons of cells that can be judged."""

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

Cell = tuple[str, float]
"""A column and a prune rate."""

OUTCOMES = HOLDS, FAILS, NOT_RESOLVED, NOT_A_TEST, OPEN = ("holds", "fails", "not resolved", "not a test", "open")
"""What may come out of a claim: `judge` says which is which."""

NEAR_CHANCE = 1.0
"""So many points above chance a network has learnt nothing that a claim could be about."""


class Comparison(NamedTuple):
    """`left - right >= margin`, in points."""

    left: Cell
    right: Cell
    margin: int | float


class Claim(NamedTuple):
    """A sentence and the comparisons that must all hold for it to hold."""

    text: str
    comparisons: tuple[Comparison, ...]


class Measured(NamedTuple):
    """What is known of a cell."""

    seeds: tuple[float, ...]  # the value of every seed, in points
    sparsity: float | None = None  # the measured share of zeros, in per cent; None where nobody has measured it

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.seeds)

    @property
    def deviation(self) -> float | None:
        """The sample's; None for a single seed."""
        return stdev(self.seeds) if len(self.seeds) > 1 else None


class Verdict(NamedTuple):
    """How a claim came out."""

    outcome: str  # one of `OUTCOMES`
    detail: str  # the cells that were compared


def keeps(column: str, rate: float, within: int | float, start: float = 0.0) -> Claim:
    """Nothing much is lost by pruning."""
    text = f"{column} at {100 * rate:g} % at most {within:g} point{'s' * (within != 1)} below its {100 * start:g} %"
    return Claim(text, (Comparison((column, rate), (column, start), -within),))


def beats(column: str, other: str, rate: float, by: int | float = 0.0) -> Claim:
    """One network is better than another.

    Example:
      >>> beats("ramping", "random_prune", 0.9).text
      'ramping above random_prune at 90 %'
    """
    more = f" by {by:g} points" if by else ""
    return Claim(f"{column} above {other} at {100 * rate:g} %{more}", (Comparison((column, rate), (other, rate), by),))


def order(columns: Sequence[str], rate: float) -> Claim:
    """Several networks in one order."""
    pairs = itertools.pairwise(columns)
    comparisons = (Comparison((better, rate), (worse, rate), 0.0) for better, worse in pairs)
    return Claim(f"at {100 * rate:g} %: {' > '.join(columns)}", tuple(comparisons))


def judge(claim: Claim, value: Callable[[Cell], Measured | None], chance: float) -> Verdict:
    """Compare the cells.

    One comparison is *open* where a cell is missing, and *not a test* where both cells are one network, of one column
    and of one measured sparsity. It *fails* if the left cell is at chance, or within 1 point of it. It is *not a test*
    as well where a column is compared with itself at chance: there was nothing to lose. It is *not resolved* if the
    difference is off the margin by less than twice its standard error. Else it *holds* or *fails* as the means say; a
    tie does not hold. A claim fails with any comparison; else it is open, then not resolved with any; it is not a test
    if no comparison is one.

    Example:
      >>> cells = {("ramping", 0.9): Measured((78.0, 82.0)), ("none", 0.9): Measured((78.0, 80.0))}
      >>> judge(beats("ramping", "none", 0.9), cells.get, chance=10)
      Verdict(outcome='not resolved', detail='80.0 ± 2.8 against 79.0 ± 1.4')
      >>> judge(beats("ramping", "l1", 0.9), cells.get, chance=10)
      Verdict(outcome='open', detail='80.0 ± 2.8 against missing')
    """
    shown: list[str] = []
    found: list[str] = []
    for comparison in claim.comparisons:
        left, right = value(comparison.left), value(comparison.right)
        if not shown:
            shown.append(_number(left, comparison.left[1]))
        shown.append(_number(right, comparison.right[1]))
        found.append(_outcome(comparison, left, right, chance))
    detail = (" against " if len(found) == 1 else " > ").join(shown)
    for outcome in (FAILS, OPEN, NOT_RESOLVED):
        if outcome in found:
            return Verdict(outcome, detail)
    return Verdict(HOLDS if HOLDS in found else NOT_A_TEST, detail)


def _outcome(comparison: Comparison, left: Measured | None, right: Measured | None, chance: float) -> str:
    """How one comparison came out."""
    if left is None or right is None:
        return OPEN
    one_column = comparison.left[0] == comparison.right[0]
    if one_column and left.sparsity is not None and left.sparsity == right.sparsity:
        return NOT_A_TEST
    if left.mean <= chance + NEAR_CHANCE:
        return FAILS
    if one_column and right.mean <= chance + NEAR_CHANCE:
        return NOT_A_TEST
    difference = left.mean - right.mean
    if abs(difference - comparison.margin) < 2 * _standard_error(left, right, paired=one_column):
        return NOT_RESOLVED
    holds = difference > 0 if comparison.margin == 0 else difference >= comparison.margin
    return HOLDS if holds else FAILS


def _standard_error(left: Measured, right: Measured, paired: bool) -> float:
    """Of the difference of two means; 0 where neither has two seeds, and nothing is known."""
    if paired and len(left.seeds) == len(right.seeds) > 1:  # the same networks, pruned at two rates
        differences = [a - b for a, b in zip(left.seeds, right.seeds, strict=True)]
        return stdev(differences) / math.sqrt(len(differences))
    known = [cell.deviation for cell in (left, right) if cell.deviation is not None]
    if not known:
        return 0.0
    # A single seed is taken to scatter as the other cell's do.
    spread = [known[0] if cell.deviation is None else cell.deviation for cell in (left, right)]
    return math.hypot(*(each / math.sqrt(len(cell.seeds)) for each, cell in zip(spread, (left, right), strict=True)))


def _number(value: Measured | None, rate: float) -> str:
    if value is None:
        return "missing"
    shown = f"{value.mean:.1f}" + ("" if value.deviation is None else f" ± {value.deviation:.1f}")
    return shown + ("" if value.sparsity is None else at_sparsity(rate, value.sparsity))


def at_sparsity(rate: float, sparsity: float) -> str:
    """What is told of a cell whose measured sparsity, in per cent, is more than two points from its rate.

    Example:
      >>> at_sparsity(0.7, 89.2), at_sparsity(0.7, 69.8)
      (' @89', '')
    """
    return f" @{sparsity:.0f}" if abs(sparsity - 100 * rate) > 2 else ""
