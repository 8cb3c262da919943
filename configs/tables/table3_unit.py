"""Table 3, units: ResNet-101 (the paper's "ResNet-102") on ImageNet.

    td-reproduce table3_unit --seeds=1 --workdir=DIR

L1 with the paper's cost takes the mean over a kernel, as the released code does: the sum would be 1,081 at the start,
where the cross entropy is 7, but the published network is as good unpruned as the one without a penalty.
"""

from td.reproduce.claims import beats
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    sweep: list[Settings] = [
        {"mask": "none"},
        {"mask": "targeted", "mask.drop_rate": 0.5, "mask.target_proportion": 0.5},
        {"mask": "l1", "mask.cost": 1e-3, "mask.reduction": "mean"},
    ]
    return Table(
        title="Table 3, units: ResNet-101 on ImageNet",
        networks=networks("imagenet_resnet", sweep, "0:0.9:0.1", granularity="unit"),
        granularity="unit",
        scorings=("dense", "paper"),
        published={"accuracy": "table3_unit"},
        claims=(
            beats("targeted .5/.5", "none", 0.2, by=30),
            beats("targeted .5/.5", "l1 0.001", 0.2, by=30),
            beats("none", "targeted .5/.5", 0.0),
        ),
        chance=0.1,
    )
