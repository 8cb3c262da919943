"""Fine-tuning: a run that starts from another's network, pruned, with its masks fixed permanently."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from td.errors import UserError
from td.io.checkpoint import check_same_network, describe
from td.masks import as_mask_vars
from td.prune import apply_mask
from td.train.config import method
from td.train.durations import to_steps
from td.train.experiment import load_trained, own_mask
from td.train.state import TrainState, start_ema


def finetune_config(workdir: Path, prune_rate: float, granularity: str = "", duration: str = "") -> ConfigDict:
    """Make the config of a run that fine-tunes another's pruned network.

    Learning rates are rewound: the schedule is the last part of the original one, a tenth by default.

    Source: Renda et al. 2020.
    """
    run, _ = load_trained(workdir, finished=True)
    source, config = run.dataset.train, ConfigDict(run.config.to_dict())
    sizes = source.size, source.examples_per_step(config.data.batch_size)
    steps = to_steps(duration, *sizes) if duration else max(1, run.steps // 10)
    if not 1 <= steps <= run.steps:
        raise UserError(
            f"duration {duration!r} is {steps} steps: give 1 to {run.steps}, as long as {workdir} was trained"
        )
    config.duration = f"{steps} steps"
    config.granularity = granularity or config.granularity
    config.mask = method("fixed", config.granularity)
    config.optim.begin = f"{to_steps(config.optim.begin, *sizes) + run.steps - steps} steps"
    config.start = ConfigDict({"workdir": str(workdir.resolve()), "prune_rate": float(prune_rate)})
    return config.lock()


def pruned_start(config: ConfigDict, state: TrainState) -> TrainState:
    """Make the state at step 0 of a run that fine-tunes: the other run's parameters, pruned, under fixed masks."""
    run, trained = load_trained(Path(config.start.workdir), finished=True)
    check_same_network(describe(trained.params), describe(state.params), config.start.workdir)
    params, mask = own_mask(run, trained, config.start.prune_rate, config.mask.granularity)
    pruned = apply_mask(params, mask)
    # Where the method itself has removed more than the rate asks for, that stays removed.
    left = jax.tree.map(lambda leaf: leaf != 0, pruned)
    mask_vars = as_mask_vars(left, pruned, config.mask.granularity, kernels=run.experiment.kernels)
    start = state._replace(params=pruned, mask_vars=mask_vars, batch_stats=trained.batch_stats)
    return start_ema(start) if state.ema else start
