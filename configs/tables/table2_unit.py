"""Table 2, units: ResNet-32 on CIFAR-10, nine columns, and group lasso, which is not in the paper.

    td-reproduce table2_unit --seeds=3 --workdir=DIR

The released code ranks variational dropout's units by the L2 norm of their weights; here they are ranked by the mean of
the method's own scores, 8 - log_a, as its weights are in both. The paper's L1 shrinks single weights; group lasso is
the penalty that empties units.
"""

from td.reproduce.claims import beats, keeps, order
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    targeted = ((0.5, 0.5), (0.33, 0.75), (0.66, 0.75), (0.9, 0.75))  # drop rate, target proportion
    sweep: list[Settings] = [
        {"mask": "none"},
        {"mask": "dropout", "mask.drop_rate": 0.25},
        *({"mask": "targeted", "mask.drop_rate": alpha, "mask.target_proportion": gamma} for alpha, gamma in targeted),
        {"mask": "variational"},
        {"mask": "l1", "mask.cost": 0.01},
        {"mask": "l0", "mask.cost": 0.01},
        {"mask": "group_lasso"},
    ]
    return Table(
        title="Table 2, units: ResNet-32 on CIFAR-10",
        networks=networks("cifar10_resnet32", sweep, "0:0.9:0.1", granularity="unit"),
        granularity="unit",
        scorings=("dense", "paper"),
        published={"accuracy": "table2_unit"},
        claims=(
            keeps("targeted .5/.5", 0.5, within=5),
            keeps("targeted .9/.75", 0.7, within=1),
            beats("targeted .5/.5", "none", 0.5, by=30),
            beats("targeted .9/.75", "none", 0.7, by=30),
            beats("targeted .9/.75", "variational", 0.6, by=30),
            beats("none", "dropout .25", 0.3),
            order(["targeted .9/.75", "targeted .66/.75", "variational", "l1 0.01", "none", "dropout .25"], 0.5),
        ),
    )
