"""Table 7a, weights: random-prune and ramping on ResNet-32, CIFAR-10; every cell is a separately trained network.

td-reproduce table7a --seeds=3 --workdir=DIR
"""

from td.reproduce.claims import beats
from td.reproduce.table import Table, at_own_rates

RATES = (0.5, 0.75, 0.9, 0.99)


def get_table() -> Table:
    return Table(
        title="Table 7a, weights: random-prune and ramping on ResNet-32, CIFAR-10",
        networks=(
            *at_own_rates("cifar10_resnet32", {"mask": "random_prune"}, "mask.proportion", RATES, "weight"),
            *at_own_rates("cifar10_resnet32", {"mask": "ramping"}, "mask.target_proportion", RATES, "weight"),
        ),
        granularity="weight",
        scorings=("dense",),
        published={"accuracy": "table7a"},
        claims=tuple(beats("ramping", "random_prune", rate) for rate in RATES),
    )
