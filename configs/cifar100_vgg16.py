"""VGG-16 with BatchNorm on CIFAR-100: the paper's Table 7c, random-prune against ramping, units.

Published accuracy, mean of 5 runs, at 75 / 85 / 90 / 95 % of the units removed: random-prune 48.98 / 45.58 / 40.50 /
31.44; ramping targeted dropout 52.64 / 49.20 / 45.03 / 30.15.

Cost: 34,019,364 parameters, 200,000 steps of batch 64, which are the released code's 256 epochs: hours on one GPU, out
of reach of a CPU (`width=0.25` and `short` are not).

It is the usual VGG-16, so that its numbers can be compared with others'. The released code has no ReLU after its two
layers of 4,096, starts weights by Glorot and targets the first convolution, too, which every network here leaves alone.

    python scripts/train.py --config=configs/cifar100_vgg16.py:mask=ramping --workdir=DIR
    python scripts/prune_curve.py --workdir=DIR --rates=0.75,0.85,0.9,0.95 --granularity=unit

Arguments after the colon: `data` (cifar100, cifar10), `mask` (any method of docs/methods.md), `granularity` (unit,
weight), `width` (a share of VGG-16's channels and hidden units), `short` (for a CPU: `epochs` long, 5 unless told, with
warm-up and cosine, and what the method schedules in proportion), `smoke` (seconds on a CPU, on the embedded digits).

The learning rate of `short` runs was not searched for (`scripts/search.py` does it, on held-out training data).
"""

from ml_collections import ConfigDict

from td.train.config import SELDOM, SMOKE, in_proportion, method, parse_arg, shorten, shrink, skeleton, weight_decay

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

PAPER = {"ramping": {"target_proportion": 0.9}}
"""The paper's numbers for this network, by method."""

SCALES = {
    "paper": SELDOM,
    "short": {"short": True, "epochs": 26.0, "every.telemetry": "1 epochs"},
    "cpu": {"width": 0.25, "short": True, "epochs": 4.0, "every.telemetry": "0.25 epochs"},
    "smoke": {"smoke": True},
}
"""What each scale of `scripts/reproduce.py` changes: arguments, and settings, which have a dot or are `duration`."""


def get_config(arg: str | None = None) -> ConfigDict:
    chosen = parse_arg(
        arg,
        data="cifar100",
        mask="none",
        granularity="unit",
        width=1.0,
        short=False,
        epochs=5.0,
        smoke=False,
    )
    config = skeleton(chosen.granularity)
    config.duration = "200000 steps"

    data = config.data
    data.name = chosen.data
    data.batch_size = 64
    data.pad = 4
    data.flip = True

    config.model = model = ConfigDict()
    model.name = "vgg"
    model.stages = tuple(tuple(max(1, round(chosen.width * n)) for n in stage) for stage in STAGES)
    model.hidden_units = (max(1, round(chosen.width * 4096)),) * 2
    model.batch_norm_momentum = 0.997
    model.dtype = "float32"

    numbers = PAPER.get(chosen.mask, {})
    config.mask = method(chosen.mask, chosen.granularity, stage="20000 steps", **numbers)

    optim = config.optim
    optim.name = "adam"
    optim.learning_rate = 1e-4
    optim.b1 = 0.85
    optim.b2 = 0.997
    optim.clip_norm = 1.0
    optim.l2 = weight_decay(chosen.mask, 5e-4)

    if chosen.short:
        shorten(config, chosen.epochs)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **in_proportion(chosen.epochs, 0.1))
        model.batch_norm_momentum = 0.99
        optim.learning_rate = 1e-3
    if chosen.smoke:
        shrink(config)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **SMOKE)
        model.stages = ((4, 4), (8,))
        model.hidden_units = (8, 8)
    return config
