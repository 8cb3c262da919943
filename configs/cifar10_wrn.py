"""WRN-28-10 on CIFAR-10: the paper's Table 4, unit pruning.

Published accuracy (%); the row of L0 is weak evidence, since its penalty may be missing:

    units pruned              0 %   30 %   50 %   70 %
    no dropout              92.21  52.20  10.53  10.00
    targeted unit .33/.75   92.24  90.09  82.09  44.05
    L0                      94.15  13.34  10.00  10.00

Cost: 36,479,194 parameters, 200 epochs of batch 128. About half an hour on one large GPU (expected); too slow for a
CPU, unlike WRN-16-2.

The released code has no WRN. The gradient is clipped at norm 1.0, as for every network there.

    td-train --config=cifar10_wrn:mask=targeted --workdir=DIR
    td-prune-curve --workdir=DIR --rates=0:0.9:0.1 --granularity=unit

Arguments after the colon: `mask` (any method of docs/methods.md), `granularity` (unit, weight, group), `depth`,
`width`, `dropout` (of activations, inside blocks), `scale` (paper, short, small, cpu, smoke).
"""

from ml_collections import ConfigDict

from td.train.config import Scales, apply_scale, method, parse_arg, skeleton, weight_decay

PAPER = {
    "targeted": {"drop_rate": 0.33, "target_proportion": 0.75},
    "l0": {"cost": 1e-6, "initial_drop_rate": 0.3},
}
"""The paper's numbers for this network, by method."""

SHORT = {"optim.schedule": "cosine", "optim.warmup": "20%"}

SCALES: Scales = {
    "paper": {"every.checkpoint": "8 epochs", "every.evaluation": "8 epochs", "every.telemetry": "8 epochs"},
    "short": {**SHORT, "duration": "20 epochs", "every.telemetry": "1 epochs"},
    "small": {
        **SHORT,
        "duration": "5 epochs",
        "depth": 16,
        "width": 2,
        "every.evaluation": "0 steps",
        "every.telemetry": "0.5 epochs",
    },
    "cpu": {**SHORT, "duration": "5 epochs", "depth": 10, "width": 1, "every.telemetry": "0.25 epochs"},
    "smoke": {"depth": 10, "width": 1, "data.pad": 1},
}


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, mask="none", granularity="unit", depth=28, width=10, dropout=0.0)
    config = skeleton(arg.granularity)
    config.duration = "200 epochs"
    config.data.update(name="cifar10", batch_size=128, pad=4, flip=True)
    config.model = ConfigDict(
        {
            "name": "wide_resnet",
            "depth": arg.depth,
            "width": arg.width,
            "dropout_rate": arg.dropout,
            "batch_norm_momentum": 0.9,
            "dtype": "float32",
        }
    )
    config.optim.update(
        name="sgd",
        momentum=0.9,
        nesterov=True,
        learning_rate=0.1,
        schedule="staircase",
        boundaries=("60 epochs", "120 epochs", "160 epochs"),
        decay=0.2,
        clip_norm=1.0,
        l2=weight_decay(arg.mask, 5e-4),
    )
    numbers = PAPER.get(arg.mask, {})
    config.mask = method(arg.mask, arg.granularity, stage="24.5%", **numbers)  # 49 of 200 epochs
    return apply_scale(config, arg.scale, SCALES)
