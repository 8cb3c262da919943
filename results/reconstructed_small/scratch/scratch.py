"""ResNet-32 on CIFAR-10, half as wide and without dropout: the control that needs no pruning, at scale small.

td-reproduce results/reconstructed_small/scratch/scratch.py --scale=small --seeds=1 --workdir=DIR
"""

from td.reproduce.table import Settings, Table, networks

HALF: Settings = {"mask": "none", "model.widths": (16, 32, 64), "model.stem_width": 16}


def get_table() -> Table:
    return Table(
        title="From scratch at half the width: ResNet-32 on CIFAR-10",
        networks=networks("cifar10_resnet32", [HALF], "0", column="half as wide"),
        granularity="unit",
    )
