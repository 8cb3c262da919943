"""The command td-train-population."""

from pathlib import Path

from ml_collections import ConfigDict

from td.io import cli


@cli.command
def main(config: ConfigDict, workdir: Path, vary: tuple[str, ...] = ()) -> None:
    """Train several networks that differ in numbers, in one program.

    Examples:
      td-train-population --config=digits_resnet:mask=targeted --workdir=runs/seeds --vary=seed=0,1,2
      td-train-population --config=mnist_mlp:mask=targeted --workdir=runs/b --vary=mask.drop_rate=0.3,0.6

    Flags:
      config: Experiment that the networks share: a file of configs/ and, after a colon, its arguments.
      workdir: Folder that gets a run folder for each network.
      vary: SETTING=VALUE,VALUE: seed, optim.learning_rate, mask.drop_rate or mask.target_proportion; repeat it for the
        product.
    """
    from td.train.config import variants
    from td.train.population import VARIED, train_population

    for name, result in train_population(config, variants(vary, VARIED), workdir).items():
        print(f"{name}: accuracy {result['accuracy']:.4f} on {result['examples']} examples")
