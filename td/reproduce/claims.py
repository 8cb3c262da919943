"""Claims on a table, as comparisons of cells that can be judged."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

Cell = tuple[str, float]
"""A column and a prune rate."""

OUTCOMES = HOLDS, FAILS, INCONCLUSIVE, NOT_A_TEST, OPEN = ("holds", "fails", "inconclusive", "not a test", "open")
"""Outcomes of a claim."""

NEAR_CHANCE = 1.0
"""Points above chance within which a network has learnt nothing."""


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
    """Measured values of a cell."""

    seeds: tuple[float, ...]  # the value of every seed, in points
    sparsity: float | None = None  # measured, in per cent; None for published values

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return fmean(self.seeds)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None for a single seed."""
        return stdev(self.seeds) if len(self.seeds) > 1 else None


class Verdict(NamedTuple):
    """Outcome of a claim."""

    outcome: str  # one of `OUTCOMES`
    detail: str  # the cells that were compared
    single_seed: bool  # True where a cell that decides a verdict of holds or fails has n = 1


def keeps(column: str, rate: float, within: int | float, start: float = 0.0) -> Claim:
    """Claim that a network loses at most `within` points by pruning."""
    text = f"{column} at {100 * rate:g} % at most {within:g} point{'s' * (within != 1)} below its {100 * start:g} %"
    return Claim(text, (Comparison((column, rate), (column, start), -within),))


def beats(column: str, other: str, rate: float, by: int | float = 0.0) -> Claim:
    """Claim that one network is better than another, by a margin if given.

    Example:
      >>> beats("ramping", "random_prune", 0.9).text
      'ramping above random_prune at 90 %'
    """
    more = f" by {by:g} points" if by else ""
    return Claim(f"{column} above {other} at {100 * rate:g} %{more}", (Comparison((column, rate), (other, rate), by),))


def order(columns: Sequence[str], rate: float) -> Claim:
    """Claim an order of several networks, the best first."""
    pairs = itertools.pairwise(columns)
    comparisons = (Comparison((better, rate), (worse, rate), 0.0) for better, worse in pairs)
    return Claim(f"at {100 * rate:g} %: {' > '.join(columns)}", tuple(comparisons))


def judge(claim: Claim, value: Callable[[Cell], Measured | None], chance: float) -> Verdict:
    """Compare the cells of a claim.

    One comparison is, by the first rule that applies:

    * open where a cell is missing;
    * not a test where both cells are one network: one column at one measured sparsity;
    * failed where the left cell is at most 1 point above chance;
    * not a test where a column is compared with itself at chance: there was nothing to lose;
    * inconclusive where the 95 % confidence interval of the difference contains the margin (needs two seeds a side);
    * held or failed as the means say; a tie does not hold.

    A claim of several fails with any comparison, else is open with any, else inconclusive with any.

    Example:
      >>> cells = {("ramping", 0.9): Measured((78.0, 82.0)), ("none", 0.9): Measured((78.0, 80.0))}
      >>> judge(beats("ramping", "none", 0.9), cells.get, chance=10)
      Verdict(outcome='inconclusive', detail='80.0 ± 2.8 against 79.0 ± 1.4', single_seed=False)
      >>> judge(beats("ramping", "l1", 0.9), cells.get, chance=10)
      Verdict(outcome='open', detail='80.0 ± 2.8 against missing', single_seed=False)
    """
    pairs = [(value(comparison.left), value(comparison.right)) for comparison in claim.comparisons]
    found = [_outcome(comparison, *pair, chance) for comparison, pair in zip(claim.comparisons, pairs, strict=True)]
    outcome = next((each for each in (FAILS, OPEN, INCONCLUSIVE, HOLDS) if each in found), NOT_A_TEST)
    decisive = [pair for each, pair in zip(found, pairs, strict=True) if each == outcome]
    single = outcome in (HOLDS, FAILS) and any(cell and len(cell.seeds) == 1 for pair in decisive for cell in pair)
    shown = [_number(pairs[0][0], claim.comparisons[0].left[1])]
    shown += [_number(pair[1], each.right[1]) for each, pair in zip(claim.comparisons, pairs, strict=True)]
    return Verdict(outcome, (" against " if len(found) == 1 else " > ").join(shown), single)


def _outcome(comparison: Comparison, left: Measured | None, right: Measured | None, chance: float) -> str:
    """Judge one comparison."""
    if left is None or right is None:
        return OPEN
    one_column = comparison.left[0] == comparison.right[0]
    if one_column and left.sparsity is not None and left.sparsity == right.sparsity:
        return NOT_A_TEST
    if left.mean <= chance + NEAR_CHANCE:
        return FAILS
    if one_column and right.mean <= chance + NEAR_CHANCE:
        return NOT_A_TEST
    if len(left.seeds) > 1 and len(right.seeds) > 1:
        low, high = _interval(left.seeds, right.seeds, paired=one_column)
        if low < comparison.margin < high:  # never where it is NaN: without scatter the means decide
            return INCONCLUSIVE
    difference = left.mean - right.mean
    holds = difference > 0 if comparison.margin == 0 else difference >= comparison.margin
    return HOLDS if holds else FAILS


def _interval(left: Sequence[float], right: Sequence[float], paired: bool) -> tuple[float, float]:
    """95 % confidence interval of the difference of two means: a paired t-test's, or Welch's."""
    from scipy import stats  # takes a second, and most commands judge nothing

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seeds that agree, as two networks at chance
        together = paired and len(left) == len(right)
        test = stats.ttest_rel(left, right) if together else stats.ttest_ind(left, right, equal_var=False)
        interval = test.confidence_interval()
    return interval.low, interval.high


def _number(value: Measured | None, rate: float) -> str:
    if value is None:
        return "missing"
    shown = f"{value.mean:.1f}" + ("" if value.deviation is None else f" ± {value.deviation:.1f}")
    return shown + ("" if value.sparsity is None else at_sparsity(rate, value.sparsity))


def at_sparsity(rate: float, sparsity: float) -> str:
    """Flag a cell whose measured sparsity, in per cent, is more than two points from its rate.

    Example:
      >>> at_sparsity(0.7, 89.2), at_sparsity(0.7, 69.8)
      (' @89', '')
    """
    return f" @{sparsity:.0f}" if abs(sparsity - 100 * rate) > 2 else ""
