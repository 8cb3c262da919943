"""Download and prepare data sets: td-prepare-data cifar10."""

from absl import flags

from td.errors import UserError
from td.io import cli

DATA_DIR = flags.DEFINE_string("data_dir", "", "Where to; default: TFDS_DATA_DIR, else ~/tensorflow_datasets.")


@cli.command(arguments=True)
def main(names: list[str]) -> None:
    from td.data.download import NAMES, prepare

    if not names:
        raise UserError(f"no data set: give one or more of {', '.join(NAMES)}")
    for name in names:
        print(f"{name} is ready in {prepare(name, DATA_DIR.value)}")
