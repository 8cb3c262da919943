"""ResNet-18, -26, -34, -50 or -101 on ImageNet, or any prepared set of images: the paper's Table 3.

Published top-1 accuracy of ResNet-101 (the paper's "ResNet-102": blocks 3, 4, 23, 3) at 0 / 10 / 30 / 50 / 70 %.
Weights: no dropout 75.9 / 75.9 / 71.9 / 45.0 / 0.7; targeted .5/.5 75.7 / 75.7 / 74.4 / 68.8 / 14.8; L1 70.6 / 70.4 /
65.7 / 53.4 / 17.6. Units: no dropout 75.7 / 34.5 / 0.4 / 0.1 / 0.1; targeted .5/.5 74.3 / 67.2 / 33.0 / 0.6 / 0.1.

Cost: 44,549,160 parameters, 120,000 steps of 1,024 images of 224 x 224: days on one GPU, out of reach of a CPU.
Images are standardised one by one, as CIFAR's are.

It is the usual ResNet-101, so that its numbers can be compared with others'. The released code's bottlenecks are
pre-activation ones without a norm on the shortcut, and its BatchNorm has momentum 0.997 and epsilon 0.001. Here as
there the cosine starts after the warm-up; here it ends with the run, there it lasts 120,000 steps of its own, and the
warm-up rises exponentially there, linearly here.

    python scripts/train.py --config=configs/imagenet_resnet.py:mask=targeted --workdir=DIR --config.data.workers=8
    python scripts/prune_curve.py --workdir=DIR --rates=0:0.9:0.1

Arguments after the colon: `data` (imagenet2012, or any prepared set of images, as tiny_imagenet), `depth` (18, 26, 34,
50, 101), `mask` (any method of docs/methods.md), `granularity` (weight, unit), `short` (for a CPU: `epochs` long, 1
unless told, 64 x 64 pixels, with warm-up and cosine), `smoke` (seconds on a CPU, on the embedded digits).

The learning rate of `short` runs was not searched for (`scripts/search.py` does it, on held-out training data).
"""

from typing import Any

from ml_collections import ConfigDict

from td.train.config import SMOKE, in_proportion, method, parse_arg, shorten, shrink, skeleton, weight_decay

PAPER: dict[str, dict[str, Any]] = {
    "targeted": {"drop_rate": 0.5, "target_proportion": 0.5},
    # With the "mean" of the code's other networks no weight's gradient exceeds 3e-9, and nothing is penalised.
    "l1": {"cost": 1e-5, "reduction": "sum"},
    "group_lasso": {"cost": 1e-3},
}
"""The paper's numbers for this network, by method."""

SCALES = {
    "paper": {},
    "short": {"duration": "12000 steps", "optim.warmup": "1000 steps", "mask.stage": "2400 steps"},
    "cpu": {
        "data": "tiny_imagenet",
        "depth": 18,
        "short": True,
        "epochs": 1.0,
        "model.width": 32,
        "data.image_size": 128,
    },
    "smoke": {"smoke": True},
}
"""What each scale of `scripts/reproduce.py` changes: arguments, and settings, which have a dot or are `duration`."""


def get_config(arg: str | None = None) -> ConfigDict:
    chosen = parse_arg(
        arg,
        data="imagenet2012",
        depth=101,
        mask="none",
        granularity="weight",
        short=False,
        epochs=1.0,
        smoke=False,
    )
    config = skeleton(chosen.granularity)
    config.duration = "120000 steps"

    data = config.data
    data.name = chosen.data
    data.batch_size = 1024
    data.image_size = 224
    data.flip = True

    config.model = model = ConfigDict()
    model.name = "large_resnet"
    model.depth = chosen.depth
    model.width = 64
    model.small_images = False
    model.batch_norm_momentum = 0.9
    model.dtype = "float32"

    numbers = PAPER.get(chosen.mask, {})
    config.mask = method(chosen.mask, chosen.granularity, stage="24000 steps", **numbers)

    optim = config.optim
    optim.learning_rate = 0.512
    optim.nesterov = True
    optim.schedule = "cosine"
    optim.warmup = "10000 steps"
    optim.clip_norm = 1.0
    optim.l2 = weight_decay(chosen.mask, 1e-4)

    if chosen.short:
        shorten(config, chosen.epochs)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **in_proportion(chosen.epochs, 0.2))
        data.batch_size = 64
        data.image_size = 64
        optim.learning_rate = 0.05
    if chosen.smoke:
        shrink(config)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **SMOKE)
        model.depth, model.width = 10, 4
        optim.warmup = "2 steps"
    return config
