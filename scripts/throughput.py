"""Time the input pipeline alone: python scripts/throughput.py --config=configs/FILE.py:ARGUMENTS."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from td import cli
from td.throughput import throughput

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
BATCHES = flags.DEFINE_integer("batches", 100, "Training batches to time.", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "A JSON file for the result.")


def main(_: list[str]) -> None:
    print(throughput(cli.config(CONFIG), BATCHES.value, Path(OUT.value) if OUT.value else None))


if __name__ == "__main__":
    cli.run(main)
