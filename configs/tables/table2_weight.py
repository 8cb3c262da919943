"""Table 2, weights: ResNet-32 on CIFAR-10, nine columns.

td-reproduce table2_weight --seeds=3 --workdir=DIR
"""

from td.reproduce.claims import beats, keeps, order
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    targeted = ((0.5, 0.5), (0.33, 0.75), (0.66, 0.75), (0.75, 0.9))  # drop rate, target proportion
    sweep: list[Settings] = [
        {"mask": "none"},
        {"mask": "dropout", "mask.drop_rate": 0.25},
        *({"mask": "targeted", "mask.drop_rate": alpha, "mask.target_proportion": gamma} for alpha, gamma in targeted),
        {"mask": "variational"},
        {"mask": "l1", "mask.cost": 0.1},
        {"mask": "l0", "mask.cost": 0.1},
    ]
    return Table(
        title="Table 2, weights: ResNet-32 on CIFAR-10",
        networks=networks("cifar10_resnet32", sweep, "0:0.9:0.1"),
        granularity="weight",
        scorings=("dense", "paper"),
        published={"accuracy": "table2_weight"},
        claims=(
            keeps("targeted .5/.5", 0.5, within=1),
            keeps("targeted .66/.75", 0.8, within=1),
            keeps("targeted .75/.9", 0.9, within=1),
            beats("targeted .66/.75", "none", 0.7, by=5),
            beats("targeted .66/.75", "none", 0.8, by=30),
            beats("targeted .75/.9", "none", 0.9, by=50),
            beats("none", "dropout .25", 0.7),
            order(["targeted .66/.75", "variational", "l1 0.1", "none", "dropout .25", "l0 0.1"], 0.7),
        ),
    )
