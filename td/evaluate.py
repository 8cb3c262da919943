"""Scoring a network: every example of a split exactly once."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from td.base import Params
from td.data import Examples

EvalStep = Callable[[Params, Any, Any], dict[str, Array]]


class Score(NamedTuple):
    """Mean loss, accuracy as a share, and the number of what was scored, each once: images, or tokens of a text."""

    loss: float
    accuracy: float
    examples: int


def score(
    eval_step: EvalStep, params_of: Callable[[int], Params], batch_stats: Any, split: Examples, batch_size: int
) -> Score:
    """Score every example of a split exactly once.

    Args:
      eval_step: from `make_eval_step`.
      params_of: batch number -> parameters, so that a draw per batch is possible.
      batch_stats: running statistics.
      split: what is scored.
      batch_size: examples a batch, if there are so many.

    Returns:
      The `Score`.
    """
    batch_size = min(batch_size, split.size)
    sums = [eval_step(params_of(i), batch_stats, batch) for i, batch in enumerate(split.eval_batches(batch_size))]
    total = {name: sum(float(part[name]) for part in sums) for name in ("loss", "correct", "examples")}
    examples = round(total["examples"])
    return Score(total["loss"] / examples, total["correct"] / examples, examples)
