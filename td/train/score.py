"""Scoring a network: every example of a split exactly once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from td.base import Params
from td.data import Examples
from td.prune import sparsity
from td.train.devices import spread
from td.train.experiment import Run
from td.train.state import TrainState, at_evaluation, averaged
from td.train.step import EvalStep, make_eval_step

EVAL_BATCH = 500


class Score(NamedTuple):
    """Mean loss, accuracy as a share, and the number of what was scored, each once: images, or tokens of a text."""

    loss: float
    accuracy: float
    examples: int


def score(
    eval_step: EvalStep, params_of: Callable[[int], Params], batch_stats: Any, split: Examples, batch_size: int
) -> Score:
    """Score every example of a split exactly once, with parameters by batch number, so that each may be a new draw."""
    batch_size = min(batch_size, split.size)
    sums = [eval_step(params_of(i), batch_stats, batch) for i, batch in enumerate(split.eval_batches(batch_size))]
    total = {name: sum(float(part[name]) for part in sums) for name in ("loss", "correct", "examples")}
    examples = round(total["examples"])
    return Score(total["loss"] / examples, total["correct"] / examples, examples)


def make_evaluation(
    run: Run, mesh: Mesh | None = None, eval_step: EvalStep | None = None
) -> Callable[[TrainState], tuple[Score, float]]:
    """Build `state -> (score, share of zeros in the kernels)` of the network as the method shows it at evaluation.

    Devices of a mesh share the work; without one, those that hold the parameters each do all of it.
    """
    step_of = eval_step or make_eval_step(run.experiment)
    rows = EVAL_BATCH if mesh is None else -(-EVAL_BATCH // mesh.size) * mesh.size

    def shared(params: Params, batch_stats: Any, batch: Any) -> dict[str, Array]:
        return step_of(params, batch_stats, batch if mesh is None else spread(batch, mesh))

    @jax.jit
    def show(state: TrainState) -> tuple[Params, Array]:
        shown = at_evaluation(run.experiment, state)
        return shown, sparsity(shown, run.experiment.kernels).total

    def evaluate(state: TrainState) -> tuple[Score, float]:
        state = averaged(state)
        shown, zeros = show(state)
        return score(shared, lambda _: shown, state.batch_stats, run.dataset.evaluation, rows), float(zeros)

    return evaluate
