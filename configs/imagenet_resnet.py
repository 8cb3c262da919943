"""ResNet-18, -26, -34, -50 or -101 on ImageNet, or any prepared set of images: the paper's Table 3.

Published top-1 accuracy (%) of ResNet-101 (the paper's "ResNet-102": blocks 3, 4, 23, 3):

    weights pruned           0 %  10 %  30 %  50 %  70 %
    no dropout              75.9  75.9  71.9  45.0   0.7
    targeted weight .5/.5   75.7  75.7  74.4  68.8  14.8
    L1                      70.6  70.4  65.7  53.4  17.6

    units pruned             0 %  10 %  30 %  50 %  70 %
    no dropout              75.7  34.5   0.4   0.1   0.1
    targeted unit .5/.5     74.3  67.2  33.0   0.6   0.1

Cost: 44,549,160 parameters, 120,000 steps of 1,024 images of 224 x 224. Days on one GPU; too slow for a CPU.

This is the standard ResNet-101, comparable with other work; images are standardised one by one, as CIFAR's are. The
released code has pre-activation bottlenecks without a norm on the shortcut, and BatchNorm with momentum 0.997 and
epsilon 0.001. In both the cosine starts after the warm-up; here it ends with the run, there 120,000 steps after the
warm-up. The warm-up is linear here, exponential there.

    td-train --config=imagenet_resnet:mask=targeted --workdir=DIR --config.data.workers=8
    td-prune-curve --workdir=DIR --rates=0:0.9:0.1

Arguments after the colon: `data` (imagenet2012, or a prepared set such as tiny_imagenet), `depth` (18, 26, 34,
50, 101), `mask` (any method of docs/methods.md), `granularity` (weight, unit, group),
`scale` (paper, short, small, cpu, smoke).
"""

from typing import Any

from ml_collections import ConfigDict

from td.train.config import Scales, apply_scale, method, parse_arg, skeleton, weight_decay

PAPER: dict[str, dict[str, Any]] = {
    "targeted": {"drop_rate": 0.5, "target_proportion": 0.5},
    # With the "mean" of the code's other networks no weight's gradient exceeds 3e-9, and nothing is penalised.
    "l1": {"cost": 1e-5, "reduction": "sum"},
    "group_lasso": {"cost": 1e-3},
}
"""The paper's numbers for this network, by method."""

SCALES: Scales = {
    "paper": {},
    "short": {"duration": "12000 steps", "optim.warmup": "1000 steps"},
    "small": {
        "data": "tiny_imagenet",
        "depth": 26,
        "duration": "30 epochs",
        "data.batch_size": 64,
        "data.image_size": 64,
        "model.width": 32,
        "optim.learning_rate": 0.1,
        "optim.warmup": "10%",
        "every.evaluation": "0 steps",
        "every.telemetry": "1 epochs",
    },
    "cpu": {
        "data": "tiny_imagenet",
        "depth": 18,
        "duration": "1 epochs",
        "data.batch_size": 64,
        "data.image_size": 128,
        "model.width": 32,
        "optim.learning_rate": 0.05,
        "optim.warmup": "20%",
    },
    "smoke": {"depth": 10, "model.width": 4, "optim.warmup": "2 steps"},
}


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, data="imagenet2012", depth=101, mask="none", granularity="weight")
    config = skeleton(arg.granularity)
    config.duration = "120000 steps"
    config.data.update(name=arg.data, batch_size=1024, image_size=224, flip=True)
    config.model = ConfigDict(
        {
            "name": "large_resnet",
            "depth": arg.depth,
            "width": 64,
            "small_images": False,
            "batch_norm_momentum": 0.9,
            "dtype": "float32",
        }
    )
    config.optim.update(
        name="sgd",
        momentum=0.9,
        nesterov=True,
        learning_rate=0.512,
        schedule="cosine",
        warmup="10000 steps",
        clip_norm=1.0,
        l2=weight_decay(arg.mask, 1e-4),
    )
    config.mask = method(arg.mask, arg.granularity, stage="20%", **PAPER.get(arg.mask, {}))
    return apply_scale(config, arg.scale, SCALES)
