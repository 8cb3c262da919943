"""BatchNorm statistics of a pruned network, estimated anew. No weight changes."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp

from td.base import Params
from td.errors import UserError
from td.train.experiment import Run

AddBatch = Callable[[Any, Params, Any], Any]


def statistics_of(run: Run, batch_stats: Any, batches: int) -> tuple[AddBatch, Any]:
    """The jitted `(total, params, batch) -> total` of BatchNorm statistics, and the total to begin with.

    The trained `batch_stats` are for their shapes.
    """
    if not batch_stats:
        raise UserError("nothing to recalibrate: this model has no BatchNorm statistics")
    if batches < 1:
        raise UserError(f"recalibration_batches={batches} is out of range: give at least 1")
    # With momentum 0 the "running" statistics after one batch are that batch's own.
    without = {"dropout_rate": 0.0} if hasattr(run.experiment.model, "dropout_rate") else {}
    model, inputs = run.experiment.model.clone(batch_norm_momentum=0.0, **without), run.experiment.task.inputs
    nothing = jax.tree.map(jnp.zeros_like, batch_stats)

    @jax.jit
    def add_batch(total: Any, params: Params, batch: Any) -> Any:
        variables = {"params": params, "batch_stats": nothing}
        _, updated = model.apply(variables, *inputs(batch, None), train=True, mutable=["batch_stats"])
        return jax.tree.map(jnp.add, total, updated["batch_stats"])

    return add_batch, nothing


def make_recalibration(
    run: Run, batch_stats: Any, batch_size: int, batches: int, seed: int
) -> Callable[[Callable[[int], Params]], Any]:
    """Build `(batch number -> params) -> batch_stats`: the mean of those of training batches, not augmented."""
    add_batch, nothing = statistics_of(run, batch_stats, batches)

    def recalibrate(params_of: Callable[[int], Params]) -> Any:
        total = nothing
        sample = run.dataset.train.sample_batches(batch_size, seed)
        for i, batch in enumerate(islice(sample, batches)):
            total = add_batch(total, params_of(i), batch)
        return jax.tree.map(lambda statistic: statistic / batches, total)

    return recalibrate
