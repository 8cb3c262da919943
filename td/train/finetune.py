"""Fine-tuning: a run that starts from another's network, pruned, with its masks fixed for good."""

from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from td.errors import UserError, check_share
from td.io.checkpoint import check_same_network, describe
from td.io.run_folder import load_config
from td.masks import as_mask_vars
from td.prune import apply_mask
from td.train.config import method
from td.train.durations import to_steps
from td.train.experiment import load_trained, own_mask
from td.train.state import TrainState


def finetune_config(workdir: Path, prune_rate: float, granularity: str = "", duration: str = "") -> ConfigDict:
    """The config of a run that fine-tunes another's pruned network.

    Learning rates are rewound: the schedule is the last part of the original one, a tenth of it unless told.

    Source: Renda et al. 2020.
    """
    check_share("rates", prune_rate)
    config = load_config(workdir)
    run, _ = load_trained(workdir, finished=True)
    source, batch_size = run.dataset.train, config.data.batch_size
    steps = max(1, run.steps // 10)
    if duration:
        steps = to_steps(duration, source.size, source.examples_per_step(batch_size))
    if not 1 <= steps <= run.steps:
        raise UserError(
            f"duration {duration!r} is {steps} steps: give 1 to {run.steps}, as long as {workdir} was trained"
        )
    tuned = ConfigDict(config.to_dict())
    tuned.duration = f"{steps} steps"
    tuned.granularity = granularity or config.get("granularity", "weight")
    tuned.mask = method("fixed", tuned.granularity)
    begun = to_steps(config.optim.get("begin", "0 steps"), source.size, source.examples_per_step(batch_size))
    tuned.optim.begin = f"{begun + run.steps - steps} steps"
    tuned.start = ConfigDict({"workdir": str(workdir.resolve()), "prune_rate": float(prune_rate)})
    return tuned.lock()


def pruned_start(config: ConfigDict, state: TrainState) -> TrainState:
    """The state at step 0 of a run that fine-tunes: the other run's parameters, pruned, and the masks they leave."""
    run, trained = load_trained(Path(config.start.workdir), finished=True)
    check_same_network(describe(trained.params), describe(state.params), config.start.workdir)
    shown, mask = own_mask(run, trained, config.start.prune_rate, config.mask.granularity)
    pruned = apply_mask(shown, mask)
    # What the method itself has removed stays removed, where that is more than the rate asks for.
    left = jax.tree.map(lambda leaf: leaf != 0, pruned)
    mask_vars = as_mask_vars(left, pruned, config.mask.granularity, kernels=run.experiment.kernels)
    average = jax.tree.map(jnp.copy, (pruned, trained.batch_stats, mask_vars.gates)) if state.average else ()
    return state._replace(params=pruned, mask_vars=mask_vars, batch_stats=trained.batch_stats, average=average)
