"""Train what a config describes: python scripts/train.py --config=configs/FILE.py:ARGUMENTS --workdir=DIR."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from td import cli
from td.rounds import train_rounds

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; the same command again resumes.", required=True)


def main(_: list[str]) -> None:
    result = train_rounds(cli.config(CONFIG), Path(WORKDIR.value))
    print(f"accuracy {result['accuracy']:.4f} on {result['examples']} examples; {WORKDIR.value}/result.json")


if __name__ == "__main__":
    cli.run(main)
