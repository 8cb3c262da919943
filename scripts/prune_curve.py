"""Prune a trained network at several rates and score it: python scripts/prune_curve.py --workdir=DIR."""

from pathlib import Path

from absl import flags

from td.evaluate.options import Options
from td.io import cli

WORKDIR = flags.DEFINE_string("workdir", None, "A folder that scripts/train.py made.", required=True)
RATES = flags.DEFINE_string("rates", "0:0.9:0.1", "Shares to remove: first:last:step, or a list with commas.")
OPTIONS = cli.define_flags(Options)


def main(_: list[str]) -> None:
    from td.evaluate.curve_files import write_curve

    print(write_curve(Path(WORKDIR.value), RATES.value, Options(**OPTIONS())))


if __name__ == "__main__":
    cli.run(main)
