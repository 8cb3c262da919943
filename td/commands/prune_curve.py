"""The command td-prune-curve."""

from td.evaluate.options import DEFAULT, Options
from td.io import cli
from td.io.files import Path


@cli.command
def main(workdir: Path, rates: str = "0:0.9:0.1", options: Options = DEFAULT) -> None:
    """Prune a trained network at several rates and score it.

    Examples:
      td-prune-curve --workdir=runs/digits --rates=0:0.9:0.1 --recalibrate_batch_norm
      td-prune-curve --workdir=runs/digits --granularity=unit --rates=0,0.5,0.7 --compact

    Flags:
      workdir: Run folder made by td-train, which also gets the curve.
      rates: Fractions to prune: first:last:step, or a list with commas.
    """
    from td.evaluate.curve_files import write_curve

    print(write_curve(workdir, rates, options))
