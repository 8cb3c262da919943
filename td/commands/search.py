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
    from td.reproduce.search import candidates, search
    from td.train.check import check_read

    config, folder = cli.config(CONFIG), Path(WORKDIR.value)
    tried = [choice.partition("=")[0] for choice in TRY.value]
    found = [candidate for _, candidate in candidates(config, TRY.value, VALIDATION.value)]
    check_read(found, folder, [*cli.overrides(CONFIG), *tried])
    print(search(config, TRY.value, VALIDATION.value, RATES.value, folder))
