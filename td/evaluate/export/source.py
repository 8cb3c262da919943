"""What an export starts from: a run's network, pruned and scored, and what its files take."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from td.data import standardize
from td.errors import UserError
from td.evaluate.export.load import build_float32
from td.evaluate.options import ExportOptions, Options, as_trained
from td.evaluate.prune_curve import intrinsic, make_view, rank
from td.evaluate.recalibrate import make_recalibration
from td.evaluate.translate import LONGER
from td.io.run_folder import load_config
from td.train.experiment import Run, load_trained
from td.train.score import score
from td.train.state import TrainState, eval_params
from td.train.step import make_eval_step

TEXT_ROWS = 32
"""Sentences a batch: their logits have the size of the vocabulary, position by position."""


class Source(NamedTuple):
    """A run's network.

    Attributes:
      run: it, computing in float32.
      variables: of the network, pruned, with the BatchNorm statistics that are exported.
      task: what the files take, as `model.json` says it.
      measured: sparsity and accuracies, td's own.
      pruning: how it was pruned, nothing left open.
      step: how long it was trained.
      rows: of the batches that it is scored in.
    """

    run: Run
    variables: dict[str, Any]
    task: dict[str, Any]
    measured: dict[str, Any]
    pruning: Options
    step: int
    rows: int


def load_source(workdir: Path, options: ExportOptions, pruning: Options) -> Source:
    """Read a run, prune its network and score it."""
    pruning = as_trained(pruning, load_config(workdir))._replace(mode="dense")
    run, state = load_trained(workdir)
    model = build_float32(run.config.model.to_dict(), run.dataset.num_classes)
    run = run._replace(experiment=run.experiment._replace(model=model))
    task = _task_of(run, options.images)
    rows = min(pruning.batch_size, run.dataset.train.size)
    rows = min(rows, TEXT_ROWS) if task["name"] == "translation" else rows
    variables, measured = _pruned(run, state, options.rate, pruning, rows)
    start = run.config.start
    measured["fine_tuned"] = {"from": Path(start.workdir).name, "rate": start.prune_rate} if start.workdir else None
    return Source(run, variables, task, measured, pruning, int(state.step), rows)


def _pruned(
    run: Run, state: TrainState, rate: float, pruning: Options, rows: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    view, ranked, key = make_view(run, pruning), rank(run, state, pruning), jax.random.key(pruning.seed)
    params, described = view(state, ranked, jnp.asarray(rate, jnp.float32), key)
    eval_step, statistics = make_eval_step(run.experiment), state.batch_stats

    def accuracy(params: Any, statistics: Any) -> float:
        return score(eval_step, lambda _: params, statistics, run.dataset.evaluation, rows).accuracy

    measured = {
        "intrinsic_sparsity": intrinsic(run, state),
        "unpruned_accuracy": accuracy(eval_params(run.experiment, state), statistics),
        "prune_rate": rate,
        "sparsity": float(described.sparsity),
        "dead_units": float(described.dead_units),
        "accuracy": accuracy(params, statistics),
        "recalibrated_accuracy": None,
    }
    if pruning.recalibrate_batch_norm:
        batches = pruning.recalibration_batches
        statistics = make_recalibration(run, statistics, rows, batches, pruning.seed)(lambda _: params)
        measured["recalibrated_accuracy"] = accuracy(params, statistics)
    return {"params": params, **({"batch_stats": statistics} if statistics else {})}, measured


def _task_of(run: Run, images: str) -> dict[str, Any]:
    """What the files take: images, or sentences of the data's longest length and translations that may be longer."""
    if run.dataset.text is not None:
        longest, model = run.config.data.lengths[-1], run.experiment.model
        cache = [longest + LONGER, model.heads, model.width // model.heads]
        return {
            "name": "translation",
            "source_length": longest,
            "target_length": longest + LONGER,
            "caches": [cache] * (2 * model.layers),
        }
    batch = next(iter(run.dataset.evaluation.eval_batches(1)))
    prepared = np.asarray(run.experiment.task.inputs(batch, None)[0])
    if images == "raw" and not np.array_equal(prepared, np.asarray(standardize(batch.images))):
        raise UserError(
            "these data prepare their images in a way of their own: give --images=standardized, and feed the files "
            "with what their task's `inputs` gives"
        )
    return {"name": "classification", "images": images, "shape": list(prepared.shape[1:])}
