"""The command td-prepare-data."""

from td.errors import UserError
from td.io import cli


@cli.command
def main(names: list[str], data_dir: str = "", from_: str = "", mirror: str = "") -> None:
    """Prepare data sets, downloaded or from your own copy.

    Examples:
      td-prepare-data cifar10
      td-prepare-data cifar100 --from=Downloads/cifar-100-binary.tar.gz

    Flags:
      data_dir: Folder for the prepared data; default: TFDS_DATA_DIR, else ~/tensorflow_datasets.
      from: Folder or archive with the official files of one data set.

    Rarely needed:
      mirror: URL of a folder to download from instead of the official one.
    """
    from td.data.prepare import NAMES, prepare

    if not names:
        raise UserError(f"no data set: give one or more of {', '.join(NAMES)}")
    if from_ and len(names) > 1:
        raise UserError(f"--from is one data set's folder or archive: {len(names)} names are given")
    for name in names:
        print(prepare(name, data_dir, from_, mirror))
