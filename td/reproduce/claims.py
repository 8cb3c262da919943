"""Claims on a table, as comparisons of cells that can be judged."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

Cell = tuple[str, float]  # a column and a prune rate
HOLDS, FAILS, INCONCLUSIVE, NOT_A_TEST, OPEN = ("holds", "fails", "inconclusive", "not a test", "open")
NEAR_CHANCE = 1.0  # points above chance within which a network has learnt nothing


class Comparison(NamedTuple):
    """`left - right >= margin`, in points."""

    left: Cell
    right: Cell
    margin: int | float
    ties: bool = False  # hold without a margin


class Claim(NamedTuple):
    """A sentence and the comparisons that must all hold for it to hold."""

    text: str
    comparisons: tuple[Comparison, ...]


class Measured(NamedTuple):
    """Measured values of a cell."""

    seeds: tuple[float, ...]  # the value of every seed, in points
    sparsity: float | None = None  # measured, in per cent; None for published values


class Verdict(NamedTuple):
    """Outcome of a claim."""

    outcome: str
    detail: str  # the cells that were compared
    single_seed: bool  # True where a cell that decides a verdict of holds or fails has n = 1


def keeps(column: str, rate: float, within: int | float, start: float = 0.0) -> Claim:
    """Claim that a network loses at most `within` points by pruning."""
    text = f"{column} at {100 * rate:g} % at most {within:g} point{'s' * (within != 1)} below its {100 * start:g} %"
    return Claim(text, (Comparison((column, rate), (column, start), -within, ties=True),))


def beats(column: str, other: str, rate: float, by: int | float = 0.0) -> Claim:
    """Claim that one network is better than another, by a margin if given."""
    more = f" by {by:g} points" if by else ""
    return Claim(f"{column} above {other} at {100 * rate:g} %{more}", (Comparison((column, rate), (other, rate), by),))


def order(columns: Sequence[str], rate: float) -> Claim:
    """Claim an order of several networks, the best first."""
    comparisons = (Comparison((better, rate), (worse, rate), 0.0) for better, worse in itertools.pairwise(columns))
    return Claim(f"at {100 * rate:g} %: {' > '.join(columns)}", tuple(comparisons))


def judge(claim: Claim, value: Callable[[Cell], Measured | None], chance: float) -> Verdict:
    """Compare the cells of a claim; it fails with any comparison, else is open with any, else inconclusive with any."""
    compared = [(each, value(each.left), value(each.right)) for each in claim.comparisons]
    found = [_outcome(*each, chance) for each in compared]
    outcome = next((each for each in (FAILS, OPEN, INCONCLUSIVE, HOLDS) if each in found), NOT_A_TEST)
    decisive = [cell for each, (_, *pair) in zip(found, compared, strict=True) if each == outcome for cell in pair]
    single = outcome in (HOLDS, FAILS) and any(cell and len(cell.seeds) == 1 for cell in decisive)
    shown = [_number(compared[0][1], claim.comparisons[0].left[1])]
    shown += [_number(right, each.right[1]) for each, _, right in compared]
    return Verdict(outcome, (" against " if len(found) == 1 else " > ").join(shown), single)


def _outcome(comparison: Comparison, left: Measured | None, right: Measured | None, chance: float) -> str:
    if left is None or right is None:
        return OPEN
    one_column = comparison.left[0] == comparison.right[0]
    if one_column and left.sparsity is not None and left.sparsity == right.sparsity:
        return NOT_A_TEST  # one network
    ours, theirs = fmean(left.seeds), fmean(right.seeds)
    if ours <= chance + NEAR_CHANCE:
        return FAILS
    if one_column and theirs <= chance + NEAR_CHANCE:
        return NOT_A_TEST  # there was nothing to lose
    if len(left.seeds) > 1 and len(right.seeds) > 1:
        low, high = _interval(left.seeds, right.seeds, paired=one_column)
        if low < comparison.margin < high:  # never where it is NaN: without scatter the means decide
            return INCONCLUSIVE
    difference = ours - theirs
    holds = difference >= comparison.margin if comparison.margin or comparison.ties else difference > 0
    return HOLDS if holds else FAILS


def _interval(left: Sequence[float], right: Sequence[float], paired: bool) -> tuple[float, float]:
    """Return the 95 % confidence interval of the difference of two means: a paired t-test's, or Welch's."""
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
    spread = f" ± {stdev(value.seeds):.1f}" if len(value.seeds) > 1 else ""
    return f"{fmean(value.seeds):.1f}{spread}" + ("" if value.sparsity is None else at_sparsity(rate, value.sparsity))


def at_sparsity(rate: float, sparsity: float) -> str:
    """Flag a cell whose measured sparsity, in per cent, is more than two points from its rate, e.g. " @89"."""
    return f" @{sparsity:.0f}" if abs(sparsity - 100 * rate) > 2 else ""
