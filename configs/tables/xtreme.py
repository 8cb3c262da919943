"""Xtreme pruning: three or four weights a unit in ResNet-32, and ResNet-18, on CIFAR-10; scored without the targets.

td-reproduce xtreme --seeds=3 --workdir=DIR
"""

from td.reproduce.claims import beats
from td.reproduce.table import Table, networks


def get_table() -> Table:
    sweep = [{"mask": "xtreme", "mask.survivors": survivors} for survivors in (3, 4)]
    return Table(
        title="Xtreme pruning on CIFAR-10",
        networks=(
            *networks("cifar10_resnet32", sweep, "0"),
            *networks("cifar10_resnet18", [{"mask": "xtreme"}], "0", column="ResNet-18"),
        ),
        granularity="weight",
        scorings=("dense", "paper"),
        published={"accuracy": "xtreme"},
        claims=(beats("xtreme 4", "xtreme 3", 0.0),),
    )
