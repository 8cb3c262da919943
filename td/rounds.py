"""Training in rounds: train, prune, rewind, train again; every round is an ordinary run folder, and so resumes."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from td.experiment import Run, load_trained
from td.masks import draw_ticket
from td.step import TrainState
from td.train import train

LOG = logging.getLogger(__name__)


def train_rounds(config: ConfigDict, folder: Path, devices: Sequence[jax.Device] | None = None) -> dict[str, Any]:
    """Train what a config describes, once or, for a method with rounds, as often as it says.

    A method with rounds trains to the step `rewind` in `folder/origin`, from there to the end in `folder/round0`, then
    from the same step with the pruned network's masks in `folder/round1` and so on; the last round is in `folder`
    itself. Step k sees the same examples in every round. The same command goes on where a killed one stopped.

    Args:
      config: the experiment.
      folder: the run's folder.
      devices: as in `train`.

    Returns:
      What the last round's `result.json` holds.

    Raises:
      UserError: as `train`, or the rewind step lies beyond the end.
      Stopped: as `train`.
    """
    if "rounds" not in config.mask:
        return train(config, folder, devices)
    mask, rounds = config.mask, config.mask.rounds
    place = [folder / f"round{number}" for number in range(rounds)] + [folder]
    train(config, folder / "origin", devices, until=mask.rewind)
    origin = load_trained(folder / "origin")[1].state
    # Training donates the state that it starts from, so every round gets a copy.
    result = train(config, place[0], devices, start=lambda _: jax.tree.map(jnp.copy, origin))
    for number in range(1, rounds + 1):
        before = load_trained(place[number - 1])[1].state

        def ticket(run: Run, before: TrainState = before, number: int = number) -> TrainState:
            removed = 1 - (1 - mask.rate) ** number
            LOG.info("round %d of %d: %.4g %% removed, back to step %d", number, rounds, 100 * removed, origin.step)
            mask_vars = draw_ticket(before.params, before.mask_vars, removed, mask.granularity, mask.scope)
            params = run.experiment.transform.prune(origin.params, mask_vars)
            return jax.tree.map(jnp.copy, origin._replace(params=params, mask_vars=mask_vars))

        result = train(config, place[number], devices, start=ticket)
    return result
