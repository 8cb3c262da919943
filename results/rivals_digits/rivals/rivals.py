"""Table of the rivals of targeted dropout for units: nested dropout, and the control that targets the largest units.

PYTHONPATH=examples/rivals td-reproduce results/rivals_digits/rivals/rivals.py --reconstruct --seeds=5 --workdir=DIR
"""

from td.reproduce.claims import beats
from td.reproduce.table import Settings, Table, networks

SWEEP: dict[str, Settings] = {
    "none": {"mask": "none"},
    "targeted .5/.5": {"mask": "targeted", "mask.drop_rate": 0.5, "mask.target_proportion": 0.5},
    "targeted .9/.75": {"mask": "targeted", "mask.drop_rate": 0.9, "mask.target_proportion": 0.75},
    "nested .5": {"mask": "nested_dropout:nested_dropout", "mask.proportion": 0.5},
    "nested .75": {"mask": "nested_dropout:nested_dropout", "mask.proportion": 0.75},
    "largest .5/.5": {"mask": "largest_targets:largest_targets"},
}


def get_table() -> Table:
    rates = "0", "0.3:0.8:0.1"
    return Table(
        title="Rivals of targeted dropout for units, digits",
        networks=tuple(
            network
            for column, settings in SWEEP.items()
            for network in networks("digits_resnet", [settings], *rates, granularity="unit", column=column)
        ),
        granularity="unit",
        claims=(
            beats("targeted .5/.5", "nested .5", 0.5),
            beats("targeted .5/.5", "nested .75", 0.5),
            beats("targeted .9/.75", "nested .75", 0.7),
            beats("targeted .5/.5", "largest .5/.5", 0.5),
            beats("nested .5", "none", 0.5),
            beats("largest .5/.5", "none", 0.5),
        ),
    )
