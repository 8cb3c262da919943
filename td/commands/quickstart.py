"""The whole idea in one or two minutes on two CPU cores: td-quickstart."""

import time

STARTED = time.perf_counter()

import runpy  # noqa: E402
from pathlib import Path  # noqa: E402

from absl import flags  # noqa: E402

from td.io import cli, config_files  # noqa: E402

WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "Where everything goes.")


@cli.command
def main(_: list[str]) -> None:
    from td.reproduce import quickstart

    get_config = runpy.run_path(str(config_files.FOLDER / "digits_resnet.py"))["get_config"]
    print(quickstart.run(get_config, Path(WORKDIR.value), STARTED))
