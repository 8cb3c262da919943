"""The command td-quickstart."""

import time

STARTED = time.perf_counter()

import runpy  # noqa: E402
from pathlib import Path  # noqa: E402

from td.io import cli  # noqa: E402


@cli.command
def main(workdir: Path = Path("runs/quickstart")) -> None:
    """Show the idea in about a minute on two CPU cores: four networks, pruned, in one table and picture.

    Examples:
      td-quickstart
      td-quickstart --workdir=somewhere/else

    Flags:
      workdir: Folder for runs, table and picture.
    """
    from td.reproduce import quickstart

    get_config = runpy.run_path(str(cli.CONFIGS / "digits_resnet.py"))["get_config"]
    print(quickstart.run(get_config, workdir, STARTED))
