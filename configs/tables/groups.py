"""Coupled groups: ResNet-32 on CIFAR-10 without the channels that its residual stream ties together; not in the paper.

    td-reproduce groups --scale=small --seeds=3 --workdir=DIR

Every column is pruned by groups, as trained and with BatchNorm recalibrated. The cost of group lasso is the one tuned
for units at scale small.
"""

from td.reproduce.claims import beats
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    targeted = ((0.5, 0.5), (0.9, 0.75))  # drop rate, target proportion
    sweep: list[Settings] = [
        {"mask": "none"},
        *({"mask": "targeted", "mask.drop_rate": alpha, "mask.target_proportion": gamma} for alpha, gamma in targeted),
        {"mask": "ramping", "mask.target_proportion": 0.9},
        {"mask": "group_lasso", "mask.cost": 3e-5},
    ]
    return Table(
        title="Coupled groups: ResNet-32 on CIFAR-10",
        networks=networks("cifar10_resnet32", sweep, "0:0.9:0.1", granularity="group"),
        granularity="group",
        claims=(
            beats("targeted .5/.5", "none", 0.5, by=30),
            beats("targeted .9/.75", "none", 0.7, by=30),
            beats("targeted .5/.5", "group_lasso 3e-05", 0.5),
            beats("targeted .9/.75", "group_lasso 3e-05", 0.7),
        ),
    )
