"""Train networks that differ in numbers in one program: td-train-population --config=... --vary=seed=0,1 ..."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from td.io import cli
from td.train.population import VARIED, train_population, variants

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What the networks share, a file of configs/.", lock_config=True
)
VARY = flags.DEFINE_multi_string("vary", [], f"As seed=0,1,2; may be given again for the product. One of {[*VARIED]}.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for one run folder a network.", required=True)


@cli.command
def main(_: list[str]) -> None:
    config, folder = cli.config(CONFIG), Path(WORKDIR.value)
    results = train_population(config, variants(VARY.value), folder)
    for name, result in results.items():
        print(f"{name}: accuracy {result['accuracy']:.4f} on {result['examples']} examples")
