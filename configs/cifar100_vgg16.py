"""VGG-16 with BatchNorm on CIFAR-100: the paper's Table 7c, random-prune against ramping, units.

Published accuracy (%), mean of 5 runs:

    units pruned               75 %   85 %   90 %   95 %
    random-prune              48.98  45.58  40.50  31.44
    ramping targeted dropout  52.64  49.20  45.03  30.15

Cost: 34,019,364 parameters, 200,000 steps of batch 64, the released code's 256 epochs. Hours on one GPU; too slow for
a CPU, except at a quarter of the width.

This is the standard VGG-16, comparable with other work. The released code has no ReLU after its two layers of 4,096
units, initialises weights by Glorot and also targets the first convolution; no network here does.

    td-train --config=cifar100_vgg16:mask=ramping --workdir=DIR
    td-prune-curve --workdir=DIR --rates=0.75,0.85,0.9,0.95 --granularity=unit

Arguments after the colon: `data` (cifar100, cifar10), `mask` (any method of docs/methods.md), `granularity` (unit,
weight, group), `width` (a fraction of VGG-16's channels and hidden units), `scale` (paper, short, small, cpu, smoke).
"""

from ml_collections import ConfigDict

from td.train.config import Scales, apply_scale, method, parse_arg, skeleton, weight_decay

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

PAPER = {"ramping": {"target_proportion": 0.9}}
"""The paper's numbers for this network, by method."""

SHORT = {
    "optim.schedule": "cosine",
    "optim.warmup": "20%",
    "optim.learning_rate": 1e-3,
    "model.batch_norm_momentum": 0.99,
}

SCALES: Scales = {
    "paper": {"every.checkpoint": "8 epochs", "every.evaluation": "8 epochs", "every.telemetry": "8 epochs"},
    "short": {**SHORT, "duration": "26 epochs", "every.telemetry": "1 epochs"},
    "small": {
        **SHORT,
        "duration": "8 epochs",
        "width": 0.25,
        "every.evaluation": "0 steps",
        "every.telemetry": "0.5 epochs",
    },
    "cpu": {**SHORT, "duration": "4 epochs", "width": 0.25, "every.telemetry": "0.25 epochs"},
    "smoke": {"data.pad": 1, "model.stages": ((4, 4), (8,)), "model.hidden_units": (8, 8)},
}


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, data="cifar100", mask="none", granularity="unit", width=1.0)
    config = skeleton(arg.granularity)
    config.duration = "200000 steps"
    config.data.update(name=arg.data, batch_size=64, pad=4, flip=True)
    config.model = ConfigDict(
        {
            "name": "vgg",
            "stages": tuple(tuple(max(1, round(arg.width * n)) for n in stage) for stage in STAGES),
            "hidden_units": (max(1, round(arg.width * 4096)),) * 2,
            "batch_norm_momentum": 0.997,
            "dtype": "float32",
        }
    )
    config.optim.update(
        name="adam",
        learning_rate=1e-4,
        b1=0.85,
        b2=0.997,
        schedule="constant",
        clip_norm=1.0,
        l2=weight_decay(arg.mask, 5e-4),
    )
    config.mask = method(arg.mask, arg.granularity, stage="10%", **PAPER.get(arg.mask, {}))
    return apply_scale(config, arg.scale, SCALES)
