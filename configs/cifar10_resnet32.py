"""ResNet-32 on CIFAR-10: the paper's Table 2.

Published accuracy (%); targeted weights are scored with the targets already removed (`--mode=prune_targets`):

    weights pruned            0 %   50 %   70 %   90 %
    no dropout              93.71  92.20  81.88  14.63
    targeted weight .66/.75 92.64  92.65  92.66  67.58

    units pruned              0 %   50 %
    no dropout              93.69  12.63
    targeted unit .5/.5     92.21  88.41

Cost: 100,000 steps of batch 128. 7 minutes on an H200 in bfloat16; with `width=he` about 30 hours on two CPU cores.

    td-train --config=cifar10_resnet32:mask=targeted,granularity=weight --workdir=DIR
    td-prune-curve --workdir=DIR --rates=0:0.9:0.1 --granularity=weight

Arguments after the colon: `mask` (any method of docs/methods.md, with the paper's numbers), `granularity` (weight,
unit, group), `width` (paper, he), `scale` (paper, short, small, cpu, smoke).
"""

from ml_collections import ConfigDict

from td.errors import lookup
from td.train.config import Scales, apply_scale, method, parse_arg, skeleton, weight_decay, weight_or_unit

WIDTHS = {"paper": (32, 64, 128), "he": (16, 32, 64)}

PAPER = {
    ("targeted", "unit"): {"drop_rate": 0.5, "target_proportion": 0.5},
    ("ramping", "unit"): {"target_proportion": 0.9},
    ("l1", "unit"): {"cost": 0.01},
    ("l0", "unit"): {"cost": 0.01},
    ("smallify", "unit"): {"cost": 1e-4},
}
"""The paper's numbers where they are not the methods' defaults."""

SHORT = {"optim.schedule": "cosine", "optim.warmup": "20%", "optim.learning_rate": 0.2}

SCALES: Scales = {
    "paper": {"every.checkpoint": "8 epochs", "every.evaluation": "8 epochs", "every.telemetry": "8 epochs"},
    "short": {**SHORT, "duration": "25 epochs", "every.telemetry": "1 epochs"},
    "small": {
        **SHORT,
        "duration": "15 epochs",
        "model.stage_sizes": (2, 2, 2),
        "model.stem_width": 32,
        "model.stem_kernel": 3,
        "model.stem_stride": 2,
        "every.evaluation": "0 steps",
        "every.telemetry": "0.5 epochs",
    },
    "cpu": {
        **SHORT,
        "duration": "6 epochs",
        "model.stage_sizes": (1, 1, 1),
        "model.widths": (8, 16, 32),
        "model.stem_width": 8,
        "model.stem_kernel": 3,
        "every.evaluation": "0 steps",
        "every.telemetry": "0.25 epochs",
    },
    "smoke": {
        "data.pad": 1,
        "model.stage_sizes": (1, 1, 1),
        "model.widths": (8, 8, 8),
        "optim.boundaries": ("2 steps", "3 steps", "4 steps"),
    },
}

TUNED = {
    "small": {
        ("l1", "weight"): {"mask.cost": 1.0},
        ("l0", "weight"): {"mask.cost": 1.0, "mask.initial_drop_rate": 0.3, "optim.gate_lr_multiplier": 100.0},
        ("variational", "weight"): {"mask.cost": 0.1, "optim.gate_lr_multiplier": 10.0},
        ("smallify", "weight"): {"mask.cost": 3e-5, "optim.gate_lr_multiplier": 1.0},
        ("group_lasso", "unit"): {"mask.cost": 3e-5},
        ("l0", "unit"): {"mask.cost": 0.1, "mask.initial_drop_rate": 0.3, "optim.gate_lr_multiplier": 30.0},
    }
}
"""Scale -> (method, granularity) -> settings tuned on held-out training data (results/searched_small)."""


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, mask="none", granularity="weight", width="paper")
    config = skeleton(arg.granularity)
    config.duration = "256 epochs"
    config.data.update(name="cifar10", batch_size=128, pad=4, flip=True)
    config.model = ConfigDict(
        {
            "name": "resnet",
            "stage_sizes": (5, 5, 5),
            "widths": lookup(WIDTHS, arg.width, "width"),
            "stem_width": 16,
            "stem_kernel": 7,
            "stem_stride": 1,
            "batch_norm_momentum": 0.997,
            "dtype": "float32",
        }
    )
    config.optim.update(
        name="sgd",
        momentum=0.9,
        learning_rate=0.4,
        schedule="staircase",
        boundaries=("40000 steps", "60000 steps", "80000 steps"),
        clip_norm=1.0,
        l2=weight_decay(arg.mask, 2e-4),
    )
    numbers = PAPER.get((arg.mask, weight_or_unit(arg.granularity)), {})
    config.mask = method(arg.mask, arg.granularity, stage="19.140625%", **numbers)  # 49 of 256 epochs
    return apply_scale(config, arg.scale, SCALES, TUNED)
