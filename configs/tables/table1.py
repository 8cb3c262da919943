"""Table 1 and Figure 1: the change of loss by pruning, CIFAR-10, one hidden layer of 10 units (30,820 weights).

python scripts/reproduce.py table1 --seeds=3 --workdir=DIR
"""

from td.reproduce.sweeps import chain, product
from td.reproduce.table import Table, networks


def get_table() -> Table:
    sweep = chain(
        product({"mask": ["none"], "data": ["cifar10"]}),
        product(
            {
                "mask": ["targeted"],
                "data": ["cifar10"],
                "mask.drop_rate": [0.5],
                "mask.target_proportion": [0.75],
            }
        ),
    )
    return Table(
        title="Table 1 and Figure 1: the change of loss by pruning",
        networks=networks("mnist_mlp", sweep, "0.75"),
        granularity="weight",
        modes=("dense",),
        published={"accuracy": "table1"},
        measure="change_of_loss",
    )
