"""Checks before a run: settings under which its numbers would silently mean something else."""

import logging

from ml_collections import ConfigDict

from td import masks
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice
from td.train.config import check_settings
from td.train.experiment import Run, in_steps

LOG = logging.getLogger(__name__)


def check_config(config: ConfigDict) -> None:
    """Raise UserError for settings that contradict each other or that nothing reads."""
    check_settings(config)
    starts_pruned = masks.find(config.mask.name).starts_pruned
    if starts_pruned != bool(config.start.workdir):
        raise UserError(
            "mask=fixed, and no other mask, needs a pruned network: set config.start.workdir=RUN, or use td-finetune"
        )
    of_curves, of_method = config.granularity, config.mask.get("granularity", config.granularity)
    for name, granularity in (("granularity", of_curves), ("mask.granularity", of_method)):
        check_choice(name, granularity, GRANULARITIES)
    if of_method != of_curves:
        raise UserError(
            f"mask.granularity={of_method!r}, but granularity={of_curves!r}, in which curves prune: set both, or give "
            "the config's argument granularity"
        )


def check_schedules(run: Run) -> None:
    """Warn of a run that ends before its schedules do."""
    mask, optim = in_steps(run.config, run.dataset)
    name = run.config.mask.name
    ends = {
        "the first update (optim.accumulate)": optim["accumulate"],
        "optim.warmup": optim["warmup"] - optim["begin"],
        f"the schedule of mask={name}": masks.find(name).final_step(mask),
    }
    for schedule, end in ends.items():
        if end > run.steps:
            LOG.warning("%s ends at step %d, after the run, which has %d: shorten it", schedule, end, run.steps)
