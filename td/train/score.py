"""Scoring a network: every example of a split exactly once."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from td.base import Params
from td.data import Examples, Split
from td.prune import sparsity
from td.train.devices import AXIS, spread
from td.train.experiment import Run
from td.train.state import TrainState, averaged, eval_params
from td.train.step import EvalStep, Metrics, make_eval_step

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
    return as_score({name: sum(float(part[name]) for part in sums) for name in sums[0]})


def stacked_batches(split: Examples, batch_size: int) -> Any:
    """Every example exactly once, in batches of one shape with the batch as first axis, for `sums_over`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *split.eval_batches(min(batch_size, split.size)))


def sums_over(eval_step: EvalStep, params_of: Callable[[Array], Params], batch_stats: Any, batches: Any) -> Metrics:
    """The sums over stacked batches, traced: the whole split in one program, for accelerators.

    On CPUs a convolution inside such a loop is ten times slower.
    """

    def add(total: Metrics, numbered: tuple[Array, Any]) -> tuple[Metrics, None]:
        number, batch = numbered
        return jax.tree.map(jnp.add, total, eval_step(params_of(number), batch_stats, batch)), None

    nothing = {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "examples")}
    count = len(jax.tree.leaves(batches)[0])
    return jax.lax.scan(add, nothing, (jnp.arange(count), batches))[0]


def as_score(sums: Mapping[str, Any]) -> Score:
    """Means, from sums over a whole split."""
    examples = round(float(sums["examples"]))
    return Score(float(sums["loss"]) / examples, float(sums["correct"]) / examples, examples)


def on_accelerator(split: Examples) -> bool:
    """Whether a split is in memory as a whole, and there is an accelerator to keep it on."""
    return isinstance(split, Split) and jax.default_backend() != "cpu"


def make_evaluation(
    run: Run, mesh: Mesh | None = None, eval_step: EvalStep | None = None, resident: bool | None = None
) -> Callable[[TrainState], tuple[Score, float]]:
    """Build `state -> (score, share of zeros in the kernels)` of the network as the method shows it at evaluation.

    Devices of a mesh share the work; without one, those that hold the parameters each do all of it. A split that is
    resident on them (None: on accelerators) is scored by one program.
    """
    step_of = eval_step or make_eval_step(run.experiment)
    rows = EVAL_BATCH if mesh is None else -(-EVAL_BATCH // mesh.size) * mesh.size

    def shared(params: Params, batch_stats: Any, batch: Any) -> dict[str, Array]:
        return step_of(params, batch_stats, batch if mesh is None else spread(batch, mesh))

    @jax.jit
    def show(state: TrainState) -> tuple[Params, Array]:
        shown = eval_params(run.experiment, state)
        return shown, sparsity(shown, run.experiment.kernels).total

    @jax.jit
    def whole(state: TrainState, batches: Any) -> tuple[Metrics, Array]:
        shown, zeros = show(state)
        return sums_over(step_of, lambda _: shown, state.batch_stats, batches), zeros

    def evaluate_resident(state: TrainState) -> tuple[Score, float]:
        sums, zeros = jax.device_get(whole(averaged(state), batches))
        return as_score(sums), float(zeros)

    if on_accelerator(run.dataset.evaluation) if resident is None else resident:
        batches = stacked_batches(run.dataset.evaluation, rows)
        even = mesh is not None and batches.labels.shape[1] % mesh.size == 0
        batches = jax.device_put(batches, mesh and NamedSharding(mesh, PartitionSpec(*[None, AXIS] if even else [])))
        return evaluate_resident

    def evaluate(state: TrainState) -> tuple[Score, float]:
        state = averaged(state)
        shown, zeros = show(state)
        return score(shared, lambda _: shown, state.batch_stats, run.dataset.evaluation, rows), float(zeros)

    return evaluate
