"""Table 4: WRN-28-10 on CIFAR-10, units, against L0.

td-reproduce table4 --seeds=1 --workdir=DIR
"""

from td.reproduce.claims import beats, keeps
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    sweep: list[Settings] = [
        {"mask": "none"},
        {"mask": "targeted", "mask.drop_rate": 0.33, "mask.target_proportion": 0.75},
        {"mask": "l0", "mask.cost": 1e-6},
    ]
    return Table(
        title="Table 4: WRN-28-10 on CIFAR-10, units",
        networks=networks("cifar10_wrn", sweep, "0:0.9:0.1", granularity="unit"),
        granularity="unit",
        scorings=("dense", "paper"),
        published={"accuracy": "table4"},
        claims=(
            keeps("targeted .33/.75", 0.3, within=3),
            beats("targeted .33/.75", "none", 0.5, by=50),
            beats("targeted .33/.75", "l0 1e-06", 0.3, by=50),
        ),
    )
