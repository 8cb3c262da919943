"""ResNet-18 on CIFAR-10: the second network of the paper's Xtreme experiment.

Published accuracy: 82 % with 99.8 % of the weights removed. Three weights a unit are 99.87 %, four are 99.83 %.

Cost: 11,173,962 parameters, 100,000 steps of batch 128, trained as ResNet-32 is: hours on one GPU, out of reach of a
CPU.

    python scripts/train.py --config=configs/cifar10_resnet18.py:mask=xtreme --workdir=DIR
    python scripts/prune_curve.py --workdir=DIR --rates=0

Arguments after the colon: `mask` (any method of docs/methods.md), `granularity` (weight, unit), `survivors` (weights a
unit that Xtreme leaves), `smoke` (seconds on a CPU, on the embedded digits).
"""

from ml_collections import ConfigDict

from td.train.config import SELDOM, SMOKE, method, parse_arg, shrink, skeleton, weight_decay

SCALES = {
    "paper": SELDOM,
    "short": {"duration": "25.6 epochs", "optim.schedule": "cosine", "mask.stage": "4.9 epochs"},
    "cpu": {
        "duration": "1 epochs",
        "optim.schedule": "cosine",
        "mask.stage": "0.191406 epochs",
        "model.depth": 10,
        "model.width": 8,
    },
    "smoke": {"smoke": True},
}
"""What each scale of `scripts/reproduce.py` changes: arguments, and settings, which have a dot or are `duration`."""


def get_config(arg: str | None = None) -> ConfigDict:
    chosen = parse_arg(arg, mask="xtreme", granularity="weight", survivors=3, smoke=False)
    config = skeleton(chosen.granularity)
    config.duration = "256 epochs"

    data = config.data
    data.name = "cifar10"
    data.pad = 4
    data.flip = True

    config.model = model = ConfigDict()
    model.name = "large_resnet"
    model.depth = 18
    model.width = 64
    model.small_images = True
    model.batch_norm_momentum = 0.997
    model.batch_norm_epsilon = 1e-3
    model.dtype = "float32"

    config.mask = method(chosen.mask, chosen.granularity, stage="49 epochs", survivors=chosen.survivors)

    optim = config.optim
    optim.learning_rate = 0.4
    optim.schedule = "staircase"
    optim.boundaries = ("40000 steps", "60000 steps", "80000 steps")
    optim.clip_norm = 1.0
    optim.l2 = weight_decay(chosen.mask, 2e-4)

    if chosen.smoke:
        shrink(config)
        config.mask = method(chosen.mask, chosen.granularity, **SMOKE, survivors=chosen.survivors)
        optim.boundaries = ("1 steps", "2 steps", "3 steps")
        model.depth, model.width = 10, 4
    return config
