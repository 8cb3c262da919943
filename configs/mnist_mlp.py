"""The dense toy network, one hidden layer of 10 units, on MNIST or CIFAR-10: the network of the paper's Table 1.

Cost: 200 epochs of batch 128, minutes on a CPU. The paper's data set is CIFAR-10 (`data=cifar10`).

    td-train --config=mnist_mlp:mask=targeted --workdir=DIR

Arguments after the colon: `mask` (a method), `granularity` (weight, unit), `data` (mnist, cifar10, digits), `scale`
(paper, short, cpu, smoke).
"""

from ml_collections import ConfigDict

from td.kernels import KERNELS
from td.train.config import Scales, apply_scale, method, parse_arg, skeleton

PAPER = {"targeted": {"drop_rate": 0.5}}
"""The paper's numbers for this network, by method."""

SCALES: Scales = {"paper": {}, "short": {"duration": "20 epochs"}, "cpu": {"duration": "20 epochs"}, "smoke": {}}


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, mask="none", granularity="weight", data="mnist")
    config = skeleton(arg.granularity)
    config.duration = "200 epochs"
    config.data.update(name=arg.data, batch_size=128)
    config.model = ConfigDict({"name": "mlp", "hidden_units": 10})
    config.kernels = KERNELS  # by name: the paper masks the first layer, too, which td.trace leaves out
    config.optim.update(name="sgd", momentum=0.0, learning_rate=1e-3, schedule="constant")
    config.every.update(checkpoint="10 epochs", evaluation="10 epochs")
    config.mask = method(arg.mask, arg.granularity, stage="25%", **PAPER.get(arg.mask, {}))
    return apply_scale(config, arg.scale, SCALES)
