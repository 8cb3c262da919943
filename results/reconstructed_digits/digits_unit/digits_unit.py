"""Units of the quickstart's ResNet on digits: what is left of the margins once pruned networks are repaired.

td-reproduce results/reconstructed_digits/digits_unit/digits_unit.py --reconstruct --seeds=5 --workdir=DIR
"""

from td.reproduce.claims import beats
from td.reproduce.table import Settings, Table, networks

HALF = {"mask": "none", "model.widths": (4, 8, 16), "model.stem_width": 4}


def get_table() -> Table:
    sweep: list[Settings] = [
        {"mask": "none"},
        {"mask": "targeted", "mask.drop_rate": 0.5, "mask.target_proportion": 0.5},
        {"mask": "targeted", "mask.drop_rate": 0.9, "mask.target_proportion": 0.75},
        {"mask": "ramping"},
    ]
    return Table(
        title="Units removed and reconstructed, digits",
        networks=(
            *networks("digits_resnet", sweep, "0", "0.3:0.8:0.1", granularity="unit"),
            *networks("digits_resnet", [HALF], "0", column="from scratch, half as wide"),
        ),
        granularity="unit",
        claims=(
            beats("targeted .5/.5", "none", 0.5, by=30),
            beats("targeted .9/.75", "none", 0.7, by=30),
            beats("ramping", "none", 0.7, by=30),
            beats("targeted .5/.5", "none", 0.5),
            beats("targeted .9/.75", "none", 0.7),
            beats("ramping", "none", 0.7),
        ),
    )
