"""Table 3, weights: ResNet-101 (the paper's "ResNet-102") on ImageNet.

    td-reproduce table3_weight --seeds=1 --workdir=DIR

L1 takes the sum over a kernel, as the config does: the published column lost 5 points unpruned, so it was penalised.
"""

from td.reproduce.claims import beats
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    sweep: list[Settings] = [
        {"mask": "none"},
        {"mask": "targeted", "mask.drop_rate": 0.5, "mask.target_proportion": 0.5},
        {"mask": "l1", "mask.cost": 1e-5},
    ]
    return Table(
        title="Table 3, weights: ResNet-101 on ImageNet",
        networks=networks("imagenet_resnet", sweep, "0:0.9:0.1", granularity="weight"),
        granularity="weight",
        scorings=("dense", "paper"),
        published={"accuracy": "table3_weight"},
        claims=(
            beats("targeted .5/.5", "none", 0.5, by=10),
            beats("targeted .5/.5", "l1 1e-05", 0.5, by=10),
            beats("none", "l1 1e-05", 0.0),
        ),
        chance=0.1,
    )
