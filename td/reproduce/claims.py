"""What the paper says of a table, as comparisons of cells that can be judged."""

import itertools
import math
from collections.abc import Callable, Sequence
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

    mean: float  # in points, over seeds
    deviation: float | None = None  # the sample's; None for a single seed
    sparsity: float | None = None  # the measured share of zeros, on any scale; None where nobody has measured it


class Verdict(NamedTuple):
    """How a claim came out."""

    outcome: str  # one of `OUTCOMES`
    detail: str  # the cells that were compared


def keeps(column: str, rate: float, within: int | float, start: float = 0.0) -> Claim:
    """Nothing much is lost by pruning."""
    text = f"{column} at {100 * rate:g} % within {within:g} points of its {100 * start:g} %"
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

    One comparison is *open* where a cell is missing, and *not a test* where both cells are one network: of one column
    and of one measured sparsity. It *fails* if the left cell is at chance, or within 1 point of it. It is *not
    resolved* if both cells have several seeds and the difference is off the margin by less than its own standard
    deviation. Else it *holds* or *fails* as the means say; a tie does not hold. A claim fails with any comparison; else
    it is open, then not resolved with any; it is no test if no comparison is one.

    Example:
      >>> cells = {("ramping", 0.9): Measured(80.0, 2.0), ("none", 0.9): Measured(79.0, 1.0)}
      >>> judge(beats("ramping", "none", 0.9), cells.get, chance=10)
      Verdict(outcome='not resolved', detail='80.0 ± 2.0 against 79.0 ± 1.0')
      >>> judge(beats("ramping", "l1", 0.9), cells.get, chance=10)
      Verdict(outcome='open', detail='80.0 ± 2.0 against missing')
    """
    shown: list[str] = []
    found: list[str] = []
    for comparison in claim.comparisons:
        left, right = value(comparison.left), value(comparison.right)
        if not shown:
            shown.append(_number(left))
        shown.append(_number(right))
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
    difference = left.mean - right.mean
    # Single seeds have no deviation: then the means alone decide.
    seeds = left.deviation is not None and right.deviation is not None
    noise = math.hypot(left.deviation or 0.0, right.deviation or 0.0) if seeds else 0.0
    if abs(difference - comparison.margin) < noise:
        return NOT_RESOLVED
    holds = difference > 0 if comparison.margin == 0 else difference >= comparison.margin
    return HOLDS if holds else FAILS


def _number(value: Measured | None) -> str:
    if value is None:
        return "missing"
    return f"{value.mean:.1f}" + ("" if value.deviation is None else f" ± {value.deviation:.1f}")
