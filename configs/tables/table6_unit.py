"""Table 6, units: Smallify, targeted dropout and ramping on ResNet-32.

td-reproduce table6_unit --seeds=3 --workdir=DIR
"""

from td.reproduce.claims import beats, keeps
from td.reproduce.table import Table, networks


def get_table() -> Table:
    sweep = [
        {"mask": "targeted", "mask.drop_rate": 0.66, "mask.target_proportion": 0.75},
        {"mask": "smallify", "mask.cost": 1e-4},
        {"mask": "ramping", "mask.drop_rate": 0.99, "mask.target_proportion": 0.9},
    ]
    return Table(
        title="Table 6, units: Smallify, targeted dropout and ramping on ResNet-32, CIFAR-10",
        networks=networks("cifar10_resnet32", sweep, "0:0.9:0.1", granularity="unit"),
        granularity="unit",
        scorings=("dense", "paper"),
        published={"accuracy": "table6_unit"},
        claims=(
            keeps("ramping .99/.9", 0.9, within=1),
            beats("ramping .99/.9", "smallify 0.0001", 0.8, by=20),
            beats("smallify 0.0001", "ramping .99/.9", 0.5),
        ),
    )
