"""Scoring a network: every example of a split exactly once, batch by batch or as one program."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
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
from td.train.step import EvalStep, make_eval_step

EVAL_BATCH = 500


class Score(NamedTuple):
    """Mean loss, accuracy from 0 to 1, and the number of examples (images, or tokens of a text)."""

    loss: float
    accuracy: float
    examples: int

    def logged(self, zeros: float) -> dict[str, float]:
        """Name the numbers for the log, with the measured sparsity."""
        return {"eval/loss": self.loss, "eval/accuracy": self.accuracy, "eval/sparsity": zeros}


Body = Callable[[Any, Any, Any], tuple[Any, Any]]  # `(carry, number of the batch, batch) -> (carry, output)`

Loop = Callable[[Body, Any, Any], tuple[Any, Any]]
"""`(body, carry, batches) -> (carry, outputs)`, like `lax.scan`: `on_host` or `in_program`."""


def stacked(trees: Any) -> Any:
    """Stack trees of arrays leaf by leaf."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def on_host(body: Body, carry: Any, batches: Callable[[], Iterator[Any]]) -> tuple[Any, Any]:
    """Loop in Python: on CPUs a convolution inside `lax.scan` is ten times slower."""
    outputs = []
    for number, batch in enumerate(batches()):
        carry, output = body(carry, number, batch)
        outputs.append(output)
    return carry, stacked(jax.device_get(outputs))


def in_program(body: Body, carry: Any, batches: Any) -> tuple[Any, Any]:
    """Loop over stacked batches inside of a compiled program, for accelerators."""
    numbers = jnp.arange(len(jax.tree.leaves(batches)[0]))
    return jax.lax.scan(lambda carry, numbered: body(carry, *numbered), carry, (numbers, batches))


def as_score(sums: Mapping[str, Any]) -> Score:
    """Means over a split, from the sums over each batch."""
    loss, correct, examples = (sum(map(float, sums[name])) for name in ("loss", "correct", "examples"))
    return Score(loss / examples, correct / examples, round(examples))


def score(eval_step: EvalStep, params: Params, batch_stats: Any, split: Examples, batch_size: int) -> Score:
    """Score every example of a split exactly once."""
    batches = partial(split.eval_batches, min(batch_size, split.size))
    return as_score(on_host(lambda _, __, batch: (None, eval_step(params, batch_stats, batch)), None, batches)[1])


def on_accelerator(split: Examples) -> bool:
    """Return True if a split is in memory as a whole, and an accelerator can keep it."""
    return isinstance(split, Split) and jax.default_backend() != "cpu"


def make_evaluation(
    run: Run, mesh: Mesh | None = None, eval_step: EvalStep | None = None, cache_on_device: bool | None = None
) -> Callable[[TrainState], tuple[Score, float]]:
    """Build `state -> (score, sparsity of the kernels)`; a split that is cached on the devices is one program."""
    step, split = eval_step or make_eval_step(run.experiment), run.dataset.evaluation
    rows = EVAL_BATCH if mesh is None else -(-EVAL_BATCH // mesh.size) * mesh.size
    batches: Any = partial(split.eval_batches, min(rows, split.size))

    @jax.jit
    def evaluated(state: TrainState) -> tuple[Params, Array]:
        params = eval_params(run.experiment, state)
        return params, sparsity(params, run.experiment.kernels).total

    def measure(loop: Loop, state: TrainState, batches: Any) -> tuple[Any, Array]:
        params, zeros = evaluated(state)

        def body(_: None, __: Any, batch: Any) -> tuple[None, Any]:
            shared = spread(batch, mesh) if mesh and loop is on_host else batch
            return None, step(params, state.batch_stats, shared)

        return loop(body, None, batches)[1], zeros

    compute: Callable[..., Any] = partial(measure, on_host)
    if on_accelerator(split) if cache_on_device is None else cache_on_device:
        batches = stacked(batches())
        even = mesh is not None and batches.labels.shape[1] % mesh.size == 0
        batches = jax.device_put(batches, mesh and NamedSharding(mesh, PartitionSpec(*[None, AXIS] if even else [])))
        compute = jax.jit(partial(measure, in_program))

    def evaluate(state: TrainState) -> tuple[Score, float]:
        sums, zeros = jax.device_get(compute(averaged(state), batches))
        return as_score(sums), float(zeros)

    return evaluate
