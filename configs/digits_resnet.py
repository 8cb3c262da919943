"""A small ResNet on scikit-learn's handwritten digits, as in the quickstart. No download, no published numbers.

Cost: 330 steps of batch 128, 10 to 20 seconds a network on two CPU cores.

    td-train --config=digits_resnet:mask=targeted,granularity=weight --workdir=DIR
    td-prune-curve --workdir=DIR --rates=0:0.9:0.1 --granularity=weight

Arguments after the colon: `mask` (any method of docs/methods.md), `granularity` (weight, unit, group), `scale`
(paper: the whole run; smoke).
"""

from typing import Any

from ml_collections import ConfigDict

from td.train.config import Scales, apply_scale, method, parse_arg, skeleton, weight_decay

SCHEDULES = {
    "stage": "10 epochs",
    "warmup": "10 epochs",
    "begin": "3 epochs",
    "end": "20 epochs",
    "interval": "10 steps",
    "rewind": "2 epochs",
}
"""Schedules of methods in 30 epochs."""

NUMBERS: dict[tuple[str, str], dict[str, Any]] = {
    ("targeted", "unit"): {"mask.drop_rate": 0.5, "mask.target_proportion": 0.5},
    ("ramping", "weight"): {"mask.target_proportion": 0.9},
    ("targeted", "group"): {"mask.drop_rate": 0.75, "mask.target_proportion": 0.9},
    ("ramping", "unit"): {"mask.target_proportion": 0.8},
    ("ramping", "group"): {"mask.target_proportion": 0.9},
    ("l1", "weight"): {"mask.cost": 3.0},
    ("group_lasso", "unit"): {"mask.cost": 3e-3},
    ("l0", "weight"): {"mask.cost": 6.0, "mask.initial_drop_rate": 0.3, "optim.gate_lr_multiplier": 100.0},
    ("l0", "unit"): {"mask.cost": 0.1, "mask.initial_drop_rate": 0.3, "optim.gate_lr_multiplier": 30.0},
    ("variational", "weight"): {"mask.cost": 1.0, "optim.gate_lr_multiplier": 10.0},
    ("variational", "unit"): {"mask.cost": 1.0, "optim.gate_lr_multiplier": 10.0},
    ("smallify", "weight"): {"mask.cost": 1e-2},
    ("smallify", "unit"): {"mask.cost": 3e-2},
    ("gradual", "unit"): {"mask.proportion": 0.5},
    ("lottery", "unit"): {"mask.rounds": 1},
}
"""Numbers for 330 steps instead of the paper's 100,000; costs are tuned (results/methods_digits)."""

SCALES: Scales = {"paper": {}, "smoke": {"model.widths": (8, 8, 8)}}


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, mask="none", granularity="weight")
    config = skeleton(arg.granularity)
    config.duration = "30 epochs"
    config.data.update(name="digits", batch_size=128)
    config.model = ConfigDict(
        {
            "name": "resnet",
            "stage_sizes": (1, 1, 1),
            "widths": (8, 16, 32),
            "stem_width": 8,
            "stem_kernel": 3,
            "batch_norm_momentum": 0.9,
            "dtype": "float32",
        }
    )
    config.optim.update(name="sgd", momentum=0.9, learning_rate=0.1, schedule="cosine", l2=weight_decay(arg.mask, 5e-4))
    config.every.update(log="20 steps", checkpoint="10 epochs", evaluation="10 epochs")
    config.mask = method(arg.mask, arg.granularity, **SCHEDULES)
    config.update_from_flattened_dict(NUMBERS.get((arg.mask, arg.granularity), {}))
    return apply_scale(config, arg.scale, SCALES)
