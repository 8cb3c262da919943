"""Prepare a data set, downloaded or from your own copy: td-prepare-data cifar10 [--from=FOLDER]."""

from absl import flags

from td.errors import UserError
from td.io import cli

DATA_DIR = flags.DEFINE_string("data_dir", "", "Where to; default: TFDS_DATA_DIR, else ~/tensorflow_datasets.")
FROM = flags.DEFINE_string("from", "", "A folder or tar archive that has the official files already.")
MIRROR = flags.DEFINE_string("mirror", "", "The URL of a folder to download from instead of the official one.")


@cli.command(arguments=True)
def main(names: list[str]) -> None:
    from td.data.prepare import NAMES, prepare

    if not names:
        raise UserError(f"no data set: give one or more of {', '.join(NAMES)}")
    if FROM.value and len(names) > 1:
        raise UserError(f"--from is one data set's folder or archive: {len(names)} names are given")
    for name in names:
        print(prepare(name, DATA_DIR.value, FROM.value, MIRROR.value))
