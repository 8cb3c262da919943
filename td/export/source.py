"""What an export starts from: a run's network, pruned and scored, and what its files take."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from td.data import standardize
from td.errors import UserError
from td.evaluate.options import ExportOptions, Options, as_trained
from td.evaluate.prune_curve import scored_by_batch
from td.evaluate.translate import LONGER
from td.export.read import build_float32
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
    row, variables = scored_by_batch(run, state, pruning._replace(batch_size=rows))(rate)
    eval_step, unpruned = make_eval_step(run.experiment), eval_params(run.experiment, state)
    measured = {
        "intrinsic_sparsity": row.intrinsic_sparsity,
        "unpruned_accuracy": score(eval_step, unpruned, state.batch_stats, run.dataset.evaluation, rows).accuracy,
        "prune_rate": rate,
        "sparsity": row.sparsity,
        "dead_units": row.dead_units,
        "accuracy": row.accuracy,
        "recalibrated_accuracy": row.recalibrated_accuracy,
    }
    return {name: part for name, part in variables.items() if part}, measured


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
