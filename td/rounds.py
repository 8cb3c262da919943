"""Training in rounds: train, prune, rewind, train again; every round is an ordinary run folder, and so resumes."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from td import workdir
from td.errors import UserError
from td.execution import PLAIN, Execution
from td.experiment import load_trained
from td.masks import draw_ticket
from td.step import TrainState
from td.train import train

LOG = logging.getLogger(__name__)


def train_rounds(config: ConfigDict, folder: Path, execution: Execution = PLAIN) -> dict[str, Any]:
    """Train what a config describes, once or, for a method with rounds, as often as it says.

    A method with rounds trains to the step `rewind` in `folder/origin`, from there to the end in `folder/round0`, then
    from the same step with the pruned network's masks in `folder/round1` and so on; the last round is in `folder`
    itself. Step k sees the same examples in every round. The same command goes on where a killed one stopped.

    Args:
      config: the experiment.
      folder: the run's folder.
      execution: as in `train`.

    Returns:
      What the last round's `result.json` holds.

    Raises:
      UserError: as `train`, or the rewind step lies beyond the end.
      Stopped: as `train`.
    """
    if "rounds" not in config.mask:
        return train(config, folder, execution)
    with workdir.held(folder, config):
        pass
    if (folder / "result.json").exists():
        return train(config, folder, execution)
    rounds = config.mask.rounds
    train(config, folder / "origin", execution, until=config.mask.rewind)
    places = [*(folder / f"round{number}" for number in range(rounds)), folder]
    for number, place in enumerate(places):
        LOG.info("round %d of %d", number, rounds)
        before = places[number - 1] if number else None
        result = train(config, place, execution, start=partial(_ticket, config, folder / "origin", before, number))
    return result


def _ticket(config: ConfigDict, origin: Path, before: Path | None, number: int) -> TrainState:
    """The state at the rewound step, under the masks of the round before."""
    start = load_trained(origin, average=False)[1]
    if before is None:
        return start.state
    trained, mask = load_trained(before)[1], config.mask
    if trained.state.step < trained.steps:
        raise UserError(f"the last checkpoint in {before} is gone: delete that folder to train the round again")
    removed = 1 - (1 - mask.rate) ** number
    mask_vars = draw_ticket(trained.state.params, trained.state.mask_vars, removed, mask.granularity, mask.scope)
    LOG.info("%.4g %% are removed, back to step %d", 100 * removed, start.state.step)
    params = start.experiment.transform.prune(start.state.params, mask_vars)
    # Training gives its state's memory away: nothing of it may be shared with the masks.
    return jax.tree.map(jnp.copy, start.state._replace(params=params, mask_vars=mask_vars))
