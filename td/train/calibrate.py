"""Statistics and weights of a pruned network, estimated from training batches."""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from td import masks
from td.base import Params
from td.data import Examples
from td.errors import UserError
from td.io.checkpoint import check_same_network, describe
from td.io.files import as_path
from td.masks import as_mask_vars
from td.prune import apply_mask
from td.recalibrate import Update, add_batch
from td.reconstruct.run import Reconstructor
from td.train.experiment import Run, in_steps, load_trained, own_mask
from td.train.score import as_score
from td.train.state import TrainState, start_ema
from td.train.step import make_eval_step

LOG = logging.getLogger(__name__)

CALIBRATION_BATCH = 500  # largest number of examples in a batch of a run that starts reconstructed

Reconstruct = Callable[[Params], tuple[Params, Any]]  # `pruned parameters -> (reconstructed parameters, statistics)`


def calibration_batches(train: Examples, size: int, count: int, seed: int) -> Iterator[Any]:
    """Draw training batches, not augmented."""
    return islice(train.sample_batches(min(size, train.size), seed), count)


def make_update(run: Run) -> Update:
    """Build `(statistics, (params, batch)) -> statistics` for `td.recalibrate`: no dropout, and no momentum to undo."""
    model, inputs = run.experiment.model, run.experiment.task.inputs
    if not hasattr(model, "batch_norm_momentum"):
        raise UserError("nothing to recalibrate: this model has no BatchNorm, or no attribute `batch_norm_momentum`")
    model = model.clone(**{name: 0.0 for name in ("batch_norm_momentum", "dropout_rate") if hasattr(model, name)})

    def update(statistics: Any, given: tuple[Params, Any]) -> Any:
        params, batch = given
        variables = {"params": params, "batch_stats": statistics}
        return model.apply(variables, *inputs(batch, None), train=True, mutable=["batch_stats"])[1]["batch_stats"]

    return update


def reference_params(run: Run, state: TrainState) -> Params:
    """Return the network that a method trains: without its targets, where it has any."""
    settings, transform = in_steps(run.config, run.dataset)[0], run.experiment.transform
    if "evaluation" in masks.find(settings["name"]).arguments:
        transform = masks.build(settings | {"evaluation": "prune_targets"}, kernels=run.experiment.kernels)
    return transform.apply(state.params, state.mask_vars, key=None, step=state.step)[0]


def make_reconstruct(run: Run, state: TrainState, batches: Iterable[Any]) -> Reconstruct:
    """Build `pruned -> (reconstructed, statistics)` from batches; only recalibrated where that loses less."""
    model, task, batches = run.experiment.model, run.experiment.task, list(batches)
    update = make_update(run) if state.batch_stats else None
    eval_step, reference = make_eval_step(run.experiment), reference_params(run, state)

    def recalibrated(params: Params) -> Any:
        total = jax.tree.map(jnp.zeros_like, state.batch_stats)
        for batch in batches if update else ():
            total = add_batch(update, total, (params, batch))
        return jax.tree.map(lambda leaf: leaf / len(batches), total)

    def loss(params: Params, statistics: Any) -> float:
        sums = [jax.device_get(eval_step(params, statistics, batch)) for batch in batches]
        return as_score({name: [each[name] for each in sums] for name in sums[0]}).loss

    inputs, statistics = [task.inputs(batch, None) for batch in batches], recalibrated(reference)

    def apply(params: Params, *inputs: Any) -> Any:
        return model.apply({"params": params, "batch_stats": statistics}, *inputs)

    rebuild = Reconstructor(apply, reference, inputs[0])

    def reconstruct(pruned: Params) -> tuple[Params, Any]:
        found = rebuild(pruned, jax.tree.map(lambda leaf: leaf != 0, pruned), inputs, reference)
        again = recalibrated(pruned)
        if loss(found, statistics) <= loss(pruned, again):
            return found, statistics
        LOG.warning("not reconstructed: on the calibration data recalibration alone leaves a smaller loss")
        return pruned, again

    return reconstruct


def pruned_start(config: ConfigDict, state: TrainState) -> TrainState:
    """Make the state at step 0 of a run that fine-tunes: another run's parameters, pruned, under fixed masks."""
    run, trained = load_trained(as_path(config.start.workdir), finished=True)
    check_same_network(describe(trained.params), describe(state.params), config.start.workdir)
    params, mask = own_mask(run, trained, config.start.prune_rate, config.mask.granularity)
    pruned, statistics = apply_mask(params, mask), trained.batch_stats
    # Where the method itself has removed more than the rate asks for, that stays removed.
    left = jax.tree.map(lambda leaf: leaf != 0, pruned)
    mask_vars = as_mask_vars(left, pruned, config.mask.granularity, kernels=run.experiment.kernels)
    if examples := config.start.reconstruct_examples:
        count = -(-examples // CALIBRATION_BATCH)
        batches = calibration_batches(run.dataset.train, examples // count, count, config.seed)
        pruned, statistics = make_reconstruct(run, trained, batches)(pruned)
    start = state._replace(params=pruned, mask_vars=mask_vars, batch_stats=statistics)
    return start_ema(start) if state.ema else start
