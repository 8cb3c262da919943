"""The dense toy network, one hidden layer of 10 units, on MNIST or CIFAR-10: the network of the paper's Table 1.

Cost: 200 epochs, minutes on a CPU. The paper's own data set is CIFAR-10 (`data=cifar10`).

    python scripts/train.py --config=configs/mnist_mlp.py:mask=targeted --workdir=DIR

Arguments after the colon: `mask` (a method), `granularity` (weight, unit), `data` (mnist, cifar10, digits), `smoke`.
"""

from ml_collections import ConfigDict

from td.train.config import SMOKE, method, parse_arg, shrink, skeleton

PAPER = {"targeted": {"drop_rate": 0.5}}
"""The paper's numbers for this network, by method."""

SCALES = {
    "paper": {},
    "short": {"duration": "20 epochs", "mask.stage": "5 epochs"},
    "cpu": {"duration": "20 epochs", "mask.stage": "5 epochs"},
    "smoke": {"smoke": True},
}
"""What each scale of `scripts/reproduce.py` changes: arguments, and settings, which have a dot or are `duration`."""


def get_config(arg: str | None = None) -> ConfigDict:
    chosen = parse_arg(arg, mask="none", granularity="weight", data="mnist", smoke=False)
    config = skeleton(chosen.granularity)
    config.duration = "200 epochs"
    config.data.name = chosen.data

    config.model = model = ConfigDict()
    model.name = "mlp"
    model.hidden_units = 10

    numbers = PAPER.get(chosen.mask, {})
    config.mask = method(chosen.mask, chosen.granularity, stage="50 epochs", **numbers)

    config.optim.learning_rate = 1e-3
    config.optim.momentum = 0.0

    config.every.checkpoint = "10 epochs"
    config.every.evaluation = "10 epochs"

    if chosen.smoke:
        shrink(config)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **SMOKE)
    return config
