"""Choose settings on held-out training data: td-search --config=... --try=mask.cost=1e-3,1e-2 --workdir=DIR."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from td.io import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "What the candidates share, a file of configs/.")
TRY = flags.DEFINE_multi_string("try", None, "As mask.cost=1e-3,1e-2; again for the product.", required=True)
VALIDATION = flags.DEFINE_integer("validation", 5000, "Training examples to hold out and score.")
RATES = flags.DEFINE_string("rates", "0,0.5,0.7,0.9", "Prune rates whose mean accuracy decides.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for one run folder a candidate.", required=True)


@cli.command
def main(_: list[str]) -> None:
    from td.reproduce.search import search

    print(search(cli.config(CONFIG), TRY.value, VALIDATION.value, RATES.value, Path(WORKDIR.value)))
