"""Prune a trained network at several rates and score it: td-prune-curve --workdir=DIR."""

from pathlib import Path

from absl import flags

from td.evaluate.options import Options
from td.io import cli

WORKDIR = flags.DEFINE_string("workdir", None, "A folder that td-train made.", required=True)
RATES = flags.DEFINE_string("rates", "0:0.9:0.1", "Shares to remove: first:last:step, or a list with commas.")
OPTIONS = cli.define_flags(Options)


@cli.command
def main(_: list[str]) -> None:
    from td.evaluate.curve_files import write_curve

    print(write_curve(Path(WORKDIR.value), RATES.value, Options(**OPTIONS())))
