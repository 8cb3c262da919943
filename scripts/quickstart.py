"""The whole idea in two minutes on two CPU cores: python scripts/quickstart.py."""

import runpy
from pathlib import Path

from absl import flags

from td import cli, quickstart

ROOT = Path(__file__).resolve().parent.parent
WORKDIR = flags.DEFINE_string("workdir", str(ROOT / "runs" / "quickstart"), "Where everything goes.")


def main(argv: list[str]) -> None:
    del argv
    get_config = runpy.run_path(str(ROOT / "configs" / "digits_resnet.py"))["get_config"]
    print(quickstart.run(get_config, Path(WORKDIR.value)))


if __name__ == "__main__":
    cli.run(main)
