"""The command td-tune."""

from pathlib import Path

from ml_collections import ConfigDict

from td.io import cli


@cli.command
def main(
    config: ConfigDict,
    workdir: Path,
    try_: tuple[str, ...],
    validation: int = 5000,
    rates: str = "0,0.5,0.7,0.9",
) -> None:
    """Tune settings by accuracy after pruning, on training data that is held out.

    Examples:
      td-tune --config=digits_resnet:mask=l1 --workdir=runs/l1 --try=mask.cost=0.3,1,3 --validation=300
      td-tune --config=cifar10_resnet32:mask=targeted,scale=cpu --workdir=runs/td --try=mask.drop_rate=0.3,0.6

    Flags:
      config: Experiment that the candidates share: a file of configs/ and, after a colon, its arguments.
      workdir: Folder that gets a run folder for each candidate.
      try: SETTING=VALUE,VALUE; repeat it for the product.
      validation: Training examples to hold out and score.
      rates: Fractions to prune, whose mean accuracy decides.
    """
    from td.reproduce.tune import tune

    print(tune(config, try_, validation, rates, workdir))
