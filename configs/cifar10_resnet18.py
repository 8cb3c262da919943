"""ResNet-18 on CIFAR-10: the second network of the paper's Xtreme experiment.

Published accuracy: 82 % with 99.8 % of the weights removed. Three weights per unit are 99.87 % sparse, four 99.83 %.

Cost: 11,173,962 parameters, 100,000 steps of batch 128. Hours on one GPU; too slow for a CPU.

    td-train --config=cifar10_resnet18:mask=xtreme --workdir=DIR
    td-prune-curve --workdir=DIR --rates=0

Arguments after the colon: `mask` (any method of docs/methods.md), `granularity` (weight, unit, group), `survivors`
(weights per unit that Xtreme keeps), `scale` (paper, short, small, cpu, smoke).
"""

from ml_collections import ConfigDict

from td.train.config import Scales, apply_scale, method, parse_arg, skeleton, weight_decay

SCALES: Scales = {
    "paper": {"every.checkpoint": "8 epochs", "every.evaluation": "8 epochs", "every.telemetry": "8 epochs"},
    "short": {"duration": "25.6 epochs", "optim.schedule": "cosine"},
    "small": {
        "duration": "15 epochs",
        "optim.schedule": "cosine",
        "optim.warmup": "20%",
        "optim.learning_rate": 0.2,
        "model.width": 16,
        "every.evaluation": "0 steps",
        "every.telemetry": "0.5 epochs",
    },
    "cpu": {"duration": "1 epochs", "optim.schedule": "cosine", "model.depth": 10, "model.width": 8},
    "smoke": {
        "data.pad": 1,
        "model.depth": 10,
        "model.width": 4,
        "optim.boundaries": ("1 steps", "2 steps", "3 steps"),
    },
}


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, mask="xtreme", granularity="weight", survivors=3)
    config = skeleton(arg.granularity)
    config.duration = "256 epochs"
    config.data.update(name="cifar10", batch_size=128, pad=4, flip=True)
    config.model = ConfigDict(
        {
            "name": "large_resnet",
            "depth": 18,
            "width": 64,
            "small_images": True,
            "batch_norm_momentum": 0.997,
            "batch_norm_epsilon": 1e-3,
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
    stage = "19.140625%"  # 49 of 256 epochs
    config.mask = method(arg.mask, arg.granularity, stage=stage, survivors=arg.survivors)
    return apply_scale(config, arg.scale, SCALES)
