"""The command td-prepare-data."""

from td.errors import UserError
from td.io import cli


@cli.command
def main(names: list[str], data_dir: str = "") -> None:
    """Download and prepare data sets.

    Examples:
      td-prepare-data cifar10
      td-prepare-data mnist cifar100 --data_dir=data

    Flags:
      data_dir: Folder for the prepared data; default: TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    from td.data.download import NAMES, prepare

    if not names:
        raise UserError(f"no data set: give one or more of {', '.join(NAMES)}")
    for name in names:
        print(f"{name} is ready in {prepare(name, data_dir)}")
