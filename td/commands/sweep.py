"""The command td-sweep."""

from ml_collections import ConfigDict

from td.evaluate.options import DEFAULT, Options
from td.io import cli
from td.io.files import Path, absolute
from td.sweep.launch import HERE, Launch


@cli.command
def main(
    config: ConfigDict,
    workdir: Path,
    sweep: tuple[str, ...] = (),
    rates: str = "0:0.9:0.1",
    launch: Launch = HERE,
    best: str = "",
    validation: int = 0,
    dry_run: bool = False,
    options: Options = DEFAULT,
) -> None:
    """Train a config with many settings, and prune each network at several rates. Rerun the same command to resume.

    Examples:
      td-sweep --config=digits_resnet:mask=targeted --sweep=mask.drop_rate=.33,.66 --sweep=seed=0,1 --workdir=runs/s
      td-sweep --config=digits_resnet --sweep=mask=none,targeted,ramping --workdir=runs/s --jobs=2
      td-sweep --config=digits_resnet:mask=l1 --sweep=mask.cost=1,3 --best=mean_accuracy --validation=300 --workdir=DIR

    Flags:
      config: Experiment that the points share: a file of configs/ and, after a colon, its arguments. Its get_hyper(h),
        if it has one, is swept too.
      workdir: Folder for all runs and sweep.csv.
      sweep: SETTING=VALUE,VALUE: a setting, or an argument of the config; repeat it for the product.
      rates: Fractions to prune: first:last:step, or a list with commas; empty: train only.
      best: Show the best point first: by mean_accuracy (over the rates, as trained and recalibrated) or mean_bleu.
      validation: Training examples to hold out and score instead of the test split.
      dry_run: Print the points with their state and an estimate of their cost, and stop.
    """
    from td.sweep import cost, curves

    path, arguments, common = cli.config_flag()
    common |= {"data.validation": validation} if validation else {}
    points = curves.list_points(path, arguments, common, sweep, absolute(workdir), rates, options)
    print(cost.dry_run(points) if dry_run else curves.run_sweep(points, launch, best))
