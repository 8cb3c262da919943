"""WRN-28-10 on CIFAR-10: the paper's Table 4, unit pruning.

Published accuracy at 0 / 30 / 50 / 70 % of the units pruned: no dropout 92.21 / 52.20 / 10.53 / 10.00; targeted unit
.33/.75 92.24 / 90.09 / 82.09 / 44.05; L0 94.15 / 13.34 / 10.00 / 10.00 (weak evidence: its penalty may be missing).

Cost: 36,479,194 parameters, 200 epochs of batch 128: about half an hour on one large GPU (expected),
out of reach of a CPU (WRN-16-2 is not).
The released code has no WRN; the gradient is clipped at norm 1.0, as it is there for every network.

    python scripts/train.py --config=configs/cifar10_wrn.py:mask=targeted --workdir=DIR
    python scripts/prune_curve.py --workdir=DIR --rates=0:0.9:0.1 --granularity=unit

Arguments after the colon: `mask` (any method of docs/methods.md), `granularity` (unit, weight), `depth`, `width`,
`dropout` (of activations, inside blocks), `short` (for a CPU: `epochs` long, 5 unless told, with warm-up and cosine,
and what the method schedules in proportion), `smoke` (seconds on a CPU, on the embedded digits).

The learning rate of `short` runs was not searched for (`scripts/search.py` does it, on held-out training data).
"""

from ml_collections import ConfigDict

from td.train.config import SELDOM, SMOKE, in_proportion, method, parse_arg, shorten, shrink, skeleton, weight_decay

PAPER = {
    "targeted": {"drop_rate": 0.33, "target_proportion": 0.75},
    "l0": {"cost": 1e-6, "initial_drop_rate": 0.3},
}
"""The paper's numbers for this network, by method."""

SCALES = {
    "paper": SELDOM,
    "short": {"short": True, "epochs": 20.0, "every.telemetry": "1 epochs"},
    "cpu": {"depth": 10, "width": 1, "short": True, "epochs": 5.0, "every.telemetry": "0.25 epochs"},
    "smoke": {"smoke": True},
}
"""What each scale of `scripts/reproduce.py` changes: arguments, and settings, which have a dot or are `duration`."""


def get_config(arg: str | None = None) -> ConfigDict:
    chosen = parse_arg(
        arg,
        mask="none",
        granularity="unit",
        depth=28,
        width=10,
        dropout=0.0,
        short=False,
        epochs=5.0,
        smoke=False,
    )
    config = skeleton(chosen.granularity)
    config.duration = "200 epochs"

    data = config.data
    data.name = "cifar10"
    data.pad = 4
    data.flip = True

    config.model = model = ConfigDict()
    model.name = "wide_resnet"
    model.depth = chosen.depth
    model.width = chosen.width
    model.dropout_rate = chosen.dropout
    model.batch_norm_momentum = 0.9
    model.dtype = "float32"

    numbers = PAPER.get(chosen.mask, {})
    config.mask = method(chosen.mask, chosen.granularity, stage="49 epochs", **numbers)

    optim = config.optim
    optim.learning_rate = 0.1
    optim.nesterov = True
    optim.schedule = "staircase"
    optim.boundaries = ("60 epochs", "120 epochs", "160 epochs")
    optim.decay = 0.2
    optim.clip_norm = 1.0
    optim.l2 = weight_decay(chosen.mask, 5e-4)

    if chosen.short:
        shorten(config, chosen.epochs)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **in_proportion(chosen.epochs, 49 / 200))
    if chosen.smoke:
        shrink(config)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **SMOKE)
        model.depth, model.width = 10, 1
    return config
