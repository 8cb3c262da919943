"""Training in rounds: train, prune, rewind, train again; every round is an ordinary run folder, and so resumes."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from td.io import run_folder
from td.io.interrupt import Stopped, listening
from td.masks import draw_ticket, find
from td.train.devices import PLAIN, Execution
from td.train.durations import expand_percent
from td.train.experiment import load_trained
from td.train.loop import train
from td.train.state import TrainState

LOG = logging.getLogger(__name__)


def train_rounds(config: ConfigDict, folder: Path, execution: Execution = PLAIN) -> dict[str, Any]:
    """Train what a config describes, once or, for a method with rounds, as often as it says.

    A method with rounds trains to the step `rewind` in `folder/origin`, from there to the end in `folder/round0`, then
    from the same step with the pruned network's masks in `folder/round1` and so on; the last round is in `folder`
    itself. Step k sees the same examples in every round. The same command goes on where a killed one stopped.
    """
    if not find(config.mask.name).in_rounds:
        return train(config, folder, execution)
    if (folder / "result.json").exists():
        return train(config, folder, execution)
    config, rounds = expand_percent(config), config.mask.rounds
    folders = [*(folder / f"round{number}" for number in range(rounds)), folder]
    claimed = (folder / "config.json").exists()
    with listening() as stops:
        if claimed:  # a folder of another config is not touched
            with run_folder.claimed(folder, config):
                pass
        train(config, folder / "origin", execution, until=config.mask.rewind, begun=claimed)
        with run_folder.claimed(folder, config):  # not before, so that a mistake in `rewind` claims nothing
            pass
        for number, own in enumerate(folders):
            if stops(0):
                raise Stopped(f"before round {number} of {rounds}")
            LOG.info("round %d of %d", number, rounds)
            before = folders[number - 1] if number else None
            ticket = partial(_ticket, config, folder / "origin", before, number)
            result = train(config, own, execution, start=ticket, begun=True)
    return result


def _ticket(config: ConfigDict, origin: Path, before: Path | None, number: int) -> TrainState:
    """The state at the rewound step, under the masks of the round before."""
    run, start = load_trained(origin, average=False)
    if before is None:
        return start
    (_, trained), mask, kernels = load_trained(before, finished=True), config.mask, run.experiment.kernels
    removed = 1 - (1 - mask.rate) ** number
    mask_vars = draw_ticket(trained.params, trained.mask_vars, removed, mask.granularity, mask.scope, kernels=kernels)
    LOG.info("%.4g %% are removed, back to step %d", 100 * removed, start.step)
    params = run.experiment.transform.prune(start.params, mask_vars)
    # A training step donates its state: no buffer of it may be shared with the masks.
    return jax.tree.map(jnp.copy, start._replace(params=params, mask_vars=mask_vars))
