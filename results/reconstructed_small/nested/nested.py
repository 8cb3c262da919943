r"""Nested dropout of three quarters of the units, the rival of Table 2's targeted .9/.75, at scale small.

PYTHONPATH=examples/rivals td-reproduce results/reconstructed_small/nested/nested.py --scale=small --seeds=1 \
  --reconstruct --workdir=DIR
"""

from td.reproduce.table import Settings, Table, networks

NESTED: Settings = {"mask": "nested_dropout:nested_dropout", "mask.proportion": 0.75}


def get_table() -> Table:
    return Table(
        title="Nested dropout: units of ResNet-32 on CIFAR-10",
        networks=networks("cifar10_resnet32", [NESTED], "0:0.9:0.1", granularity="unit", column="nested .75"),
        granularity="unit",
    )
