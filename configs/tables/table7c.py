"""Table 7c, units: random-prune and ramping on VGG-16, CIFAR-100; every cell is a separately trained network.

td-reproduce table7c --seeds=5 --workdir=DIR
"""

from td.reproduce.claims import beats
from td.reproduce.table import Table, at_own_rates

RATES = (0.75, 0.85, 0.9, 0.95)


def get_table() -> Table:
    return Table(
        title="Table 7c, units: random-prune and ramping on VGG-16, CIFAR-100",
        networks=(
            *at_own_rates("cifar100_vgg16", {"mask": "random_prune"}, "mask.proportion", RATES, "unit"),
            *at_own_rates("cifar100_vgg16", {"mask": "ramping"}, "mask.target_proportion", RATES, "unit"),
        ),
        granularity="unit",
        scorings=("dense",),
        published={"accuracy": "table7c"},
        claims=tuple(beats("ramping", "random_prune", rate) for rate in RATES[:3]),
        chance=1.0,
    )
