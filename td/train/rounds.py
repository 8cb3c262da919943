"""Training in rounds: train, prune, rewind, train again. Every round is an ordinary run folder, and so resumes."""

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
    """Train the run described by `config`; a method with rounds trains once per round.

    That trains to the step `rewind` in `folder/origin`, from there to the end in `folder/round0`, then from the same
    step with the pruned network's masks in `folder/round1` and so on; the last round is in `folder` itself. Step k sees
    the same examples in every round. Rerun to resume.
    """
    if not find(config.mask.name).in_rounds or (folder / "result.json").exists():
        return train(config, folder, execution)
    config, rounds = expand_percent(config), config.mask.rounds
    with run_folder.lock(folder, config):
        pass  # a folder of another config is not touched
    folders = [*(folder / f"round{number}" for number in range(rounds)), folder]
    with listening() as stops:
        train(config, folder / "origin", execution, until=config.mask.rewind)
        for number, own in enumerate(folders):
            if stops(0):
                raise Stopped(f"before round {number} of {rounds}")
            LOG.info("round %d of %d", number, rounds)
            before = folders[number - 1] if number else None
            ticket = partial(_ticket, config, folder / "origin", before, number)
            result = train(config, own, execution, start=ticket)
    return result


def _ticket(config: ConfigDict, origin: Path, before: Path | None, number: int) -> TrainState:
    """Make the state at the rewound step, under the masks of the round before."""
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
