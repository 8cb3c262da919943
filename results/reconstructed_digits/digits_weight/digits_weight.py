"""Weights of the quickstart's ResNet on digits: what is left of the margins once pruned networks are repaired.

td-reproduce results/reconstructed_digits/digits_weight/digits_weight.py --reconstruct --seeds=5 --workdir=DIR
"""

from td.reproduce.claims import beats
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    sweep: list[Settings] = [
        {"mask": "none"},
        {"mask": "l1"},
        {"mask": "targeted", "mask.drop_rate": 0.66, "mask.target_proportion": 0.75},
        {"mask": "targeted", "mask.drop_rate": 0.75, "mask.target_proportion": 0.9},
        {"mask": "ramping"},
    ]
    return Table(
        title="Weights removed and reconstructed, digits",
        networks=networks("digits_resnet", sweep, "0", "0.5:0.9:0.1", "0.95"),
        granularity="weight",
        claims=(
            beats("targeted .66/.75", "none", 0.7, by=5),
            beats("targeted .66/.75", "none", 0.8, by=30),
            beats("targeted .75/.9", "none", 0.9, by=50),
            beats("ramping", "none", 0.9, by=50),
            beats("targeted .66/.75", "none", 0.7),
            beats("targeted .66/.75", "none", 0.8),
            beats("targeted .75/.9", "none", 0.9),
            beats("l1", "none", 0.9),
            beats("ramping", "none", 0.9),
        ),
    )
