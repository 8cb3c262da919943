"""Table 6, weights: Smallify, targeted dropout and ramping on ResNet-32, in the paper's three ranges of prune rates.

td-reproduce table6_weight --seeds=3 --workdir=DIR
"""

from td.reproduce.claims import beats, keeps
from td.reproduce.table import Table, networks

LEFT, MIDDLE, RIGHT = "0:0.9:0.1", "0.9:0.99:0.01", "0.985:0.994:0.001"
CONFIG = "cifar10_resnet32"


def get_table() -> Table:
    targeted = {"mask": "targeted", "mask.drop_rate": 0.66, "mask.target_proportion": 0.75}
    smallify = {"mask": "smallify", "mask.cost": 1e-5}
    ramping = {"mask": "ramping", "mask.drop_rate": 0.99, "mask.target_proportion": 0.99}
    return Table(
        title="Table 6, weights: Smallify, targeted dropout and ramping on ResNet-32, CIFAR-10",
        networks=(
            *networks(CONFIG, [targeted], LEFT),
            *networks(CONFIG, [smallify], LEFT, MIDDLE),
            *networks(CONFIG, [ramping], MIDDLE, RIGHT),
        ),
        granularity="weight",
        scorings=("dense", "paper"),
        published={"accuracy": "table6_weight"},
        claims=(
            beats("smallify 1e-05", "targeted .66/.75", 0.9),
            keeps("ramping .99/.99", 0.99, within=1, start=0.9),
            beats("ramping .99/.99", "smallify 1e-05", 0.98, by=20),
        ),
    )
