"""What the paper says of a table, as comparisons of cells that can be judged."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

Cell = tuple[str, float]
"""A column and a prune rate."""


class Comparison(NamedTuple):
    """`left - right >= margin`, in points."""

    left: Cell
    right: Cell
    margin: int | float


class Claim(NamedTuple):
    """A sentence and the comparisons that must all hold for it to hold."""

    text: str
    comparisons: tuple[Comparison, ...]


class Verdict(NamedTuple):
    """How a claim came out.

    Attributes:
      holds: None where a cell is missing.
      detail: the cells that were compared.
    """

    holds: bool | None
    detail: str


def keeps(column: str, rate: float, within: int | float, start: float = 0.0) -> Claim:
    """Nothing much is lost by pruning.

    Args:
      column: the network.
      rate: it is pruned at this rate.
      within: points it may lose.
      start: against this rate.

    Returns:
      The claim.

    Example:
      >>> keeps("targeted .66/.75", 0.8, 2).text
      'targeted .66/.75 at 80 % within 2 points of its 0 %'
    """
    text = f"{column} at {100 * rate:g} % within {within:g} points of its {100 * start:g} %"
    return Claim(text, (Comparison((column, rate), (column, start), -within),))


def beats(column: str, other: str, rate: float, by: int | float = 0.0) -> Claim:
    """One network is better than another.

    Args:
      column: the better one.
      other: the worse one.
      rate: where both are pruned.
      by: at least so many points.

    Returns:
      The claim.

    Example:
      >>> beats("ramping", "random_prune", 0.9).text
      'ramping above random_prune at 90 %'
    """
    more = f" by {by:g} points" if by else ""
    return Claim(f"{column} above {other} at {100 * rate:g} %{more}", (Comparison((column, rate), (other, rate), by),))


def order(columns: Sequence[str], rate: float) -> Claim:
    """Several networks in one order.

    Args:
      columns: the best one first.
      rate: where all are pruned.

    Returns:
      The claim.

    Example:
      >>> order(["targeted .5/.5", "none", "dropout .25"], 0.7).text
      'at 70 %: targeted .5/.5 > none > dropout .25'
    """
    pairs = itertools.pairwise(columns)
    comparisons = (Comparison((better, rate), (worse, rate), 0.0) for better, worse in pairs)
    return Claim(f"at {100 * rate:g} %: {' > '.join(columns)}", tuple(comparisons))


def judge(claim: Claim, value: Callable[[Cell], float | None]) -> Verdict:
    """Compare the cells.

    Args:
      claim: what is said.
      value: cell -> its mean in points; None where it is missing.

    Returns:
      The verdict.

    Example:
      >>> cells = {("ramping", 0.9): 80.0, ("none", 0.9): 10.0}
      >>> judge(beats("ramping", "none", 0.9), cells.get)
      Verdict(holds=True, detail='80.0 against 10.0')
      >>> judge(beats("ramping", "l1", 0.9), cells.get)
      Verdict(holds=None, detail='80.0 against missing')
    """
    shown: list[str] = []
    held: list[bool | None] = []
    for comparison in claim.comparisons:
        left, right = value(comparison.left), value(comparison.right)
        if not shown:
            shown.append(_number(left))
        shown.append(_number(right))
        held.append(None if left is None or right is None else left - right >= comparison.margin)
    # One comparison that fails decides, whatever the missing cells would say.
    holds = False if False in held else None if None in held else True
    return Verdict(holds, (" against " if len(held) == 1 else " > ").join(shown))


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.1f}"
