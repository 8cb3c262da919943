"""Download a data set and prepare it for TFDS: python scripts/prepare_data.py cifar10 --data_dir=DIR."""

from absl import flags

from td.io import cli

DATA_DIR = flags.DEFINE_string("data_dir", "", "Where to; default: TFDS_DATA_DIR, else ~/tensorflow_datasets.")


def main(names: list[str]) -> None:
    from td.data.tfds_folder import prepare

    for name in names or ["cifar10"]:
        print(prepare(name, DATA_DIR.value))


if __name__ == "__main__":
    cli.run(main, arguments=True)
