"""What a run is not begun with: settings that contradict each other, that nothing reads, or under which nothing is
learned."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from td import data, masks
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice
from td.io.run_folder import MAY_DIFFER, flatten
from td.train.config import IMAGE_SETTINGS, check_settings
from td.train.experiment import Run, in_steps

LOG = logging.getLogger(__name__)

READ_BY = {
    "optim.decay": ("optim.schedule", ("staircase",)),
    "optim.boundaries": ("optim.schedule", ("staircase",)),
    "optim.momentum": ("optim.name", ("sgd", "adafactor")),
    "optim.nesterov": ("optim.name", ("sgd",)),
    "optim.b1": ("optim.name", ("adam",)),
    "optim.b2": ("optim.name", ("adam",)),
    "optim.gate_rate": ("mask.name", tuple(name for name, method in masks.METHODS.items() if method.has_gates)),
}
"""Settings that are read where another one has one of these values."""


def check_new(config: ConfigDict) -> None:
    """Refuse what a run is not begun with: settings that contradict each other, or that nothing takes."""
    check_settings(config)
    method = masks.find(config.mask.name)
    if config.start.workdir and not method.starts_pruned:
        raise UserError(
            f"mask={config.mask.name} starts from no other network: leave start.workdir, or give mask=fixed"
        )
    if config.start.prune_rate and not config.start.workdir:
        raise UserError(
            f"start.prune_rate={config.start.prune_rate}, but of which network? give its run as start.workdir"
        )
    if method.starts_pruned and not config.start.workdir:
        raise UserError(
            f"mask={config.mask.name} needs a pruned network: set config.start.workdir=RUN, or use td-finetune"
        )
    if method.in_rounds and config.mask.rounds < 1:
        raise UserError(f"mask.rounds={config.mask.rounds} is out of range: give 1 or more, or mask=none")
    model = config.get("model", {})
    momentum = model.get("batch_norm_momentum", 0.0)
    if ":" not in model.get("name", "") and not 0 <= momentum < 1:
        raise UserError(f"model.batch_norm_momentum={momentum} is out of range: give a number from 0 to below 1")
    of_curves, of_method = config.granularity, config.mask.get("granularity", config.granularity)
    for name, granularity in (("granularity", of_curves), ("mask.granularity", of_method)):
        check_choice(name, granularity, GRANULARITIES)
    if of_method != of_curves:
        raise UserError(
            f"mask.granularity={of_method!r}, but granularity={of_curves!r}, in which curves prune: set both, or give "
            "the card's argument granularity"
        )
    settings = config.data.to_dict()
    here = {name.removeprefix("data.") for name in MAY_DIFFER}  # is of this machine, as one may say for all runs
    for name in {*settings} & {*IMAGE_SETTINGS} - {*data.taken(settings)} - here:
        if settings[name] != IMAGE_SETTINGS[name] and ":" not in config.data.name:
            raise UserError(
                f"data.{name}={settings[name]!r} means nothing to the data set {config.data.name!r}: give "
                f"--config.data.{name}={IMAGE_SETTINGS[name]}"
            )


def check_read(configs: Sequence[ConfigDict], folder: Path, overrides: Collection[str]) -> None:
    """Refuse what was asked for by name, though none of these configs reads it.

    A card may well have such: one for a staircase that is shortened to a cosine.
    """
    if [*folder.glob("config.json"), *folder.glob("*/config.json")]:  # begun before it was refused
        return
    listed = [flatten(config.to_dict()) for config in configs]
    for name in overrides:
        switch, wanted = READ_BY.get(name, ("", ()))
        chosen = [settings.get(switch, "") for settings in listed]
        if switch and not any(value in wanted or ":" in value for value in chosen):
            raise UserError(
                f"{name} is not read where {switch} is {chosen[0]!r}: leave it, or give {switch}={' or '.join(wanted)}"
            )


def check_learns(run: Run) -> None:
    """Refuse a run that ends before its first update, and warn of one that ends before what it schedules."""
    mask, optim = in_steps(run.config, run.dataset)
    if optim["accumulate"] > run.steps:
        raise UserError(
            f"optim.accumulate={optim['accumulate']} batches make one update, and the run has {run.steps}: give less"
        )
    name = run.config.mask.name
    ends = {
        "optim.warmup": optim["warmup"] - optim["begin"],
        f"the schedule of mask={name}": masks.find(name).final_step(mask),
    }
    for schedule, end in ends.items():
        if end > run.steps:
            LOG.warning("%s ends at step %d, after the run, which has %d: shorten it", schedule, end, run.steps)
