"""Table 1 and Figure 1: the change of loss by pruning, CIFAR-10, one hidden layer of 10 units.

All 30,820 weights are targeted and pruned, including the last layer. Without the last layer, pruning costs the network
without dropout 3.6 points of accuracy; with it, as much as in the paper.

    td-reproduce table1 --seeds=3 --workdir=DIR
"""

from td.reproduce.table import Settings, Table, networks

TOY = {"data": "cifar10", "kernels": "."}


def get_table() -> Table:
    sweep: list[Settings] = [
        {"mask": "none", **TOY},
        {"mask": "targeted", "mask.drop_rate": 0.5, "mask.target_proportion": 0.75, **TOY},
    ]
    return Table(
        title="Table 1 and Figure 1: the change of loss by pruning",
        networks=networks("mnist_mlp", sweep, "0.75"),
        granularity="weight",
        scorings=("dense",),
        published={"accuracy": "table1"},
        measure="change_of_loss",
    )
