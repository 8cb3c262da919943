"""Checks before a run: settings under which its numbers would silently mean something else."""

import logging

from ml_collections import ConfigDict

from td import masks
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice
from td.train.config import check_settings
from td.train.experiment import Run, in_steps

LOG = logging.getLogger(__name__)

STAGES = {"stage": 2, "warmup": 1, "end": 1}
"""How many of these durations it takes until a method of this package has its final numbers."""


def check_config(config: ConfigDict) -> None:
    """Raise UserError for settings that contradict each other or that nothing reads."""
    check_settings(config)
    if (config.mask.name == "fixed") != bool(config.start.workdir):
        raise UserError(
            "mask=fixed needs a pruned network, start.workdir=RUN, and other masks take none: use td-finetune"
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
    """Warn of a run that ends before what it schedules."""
    mask, optim = in_steps(run.config, run.dataset)
    ends = {"optim.warmup": optim["warmup"] - optim["begin"]}
    own = () if ":" in run.config.mask.name else masks.durations(run.config.mask.name)
    ends |= {f"mask.{name}": mask[name] * STAGES[name] for name in own if name in STAGES}
    for name, end in ends.items():
        if end > run.steps:
            LOG.warning("%s: done at step %d only, and the run has %d: shorten it", name, end, run.steps)
