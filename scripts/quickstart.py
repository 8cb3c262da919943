"""The whole idea in two minutes on two CPU cores: python scripts/quickstart.py."""

import time

STARTED = time.perf_counter()

import runpy  # noqa: E402
from pathlib import Path  # noqa: E402

from absl import flags  # noqa: E402

from td.io import cli  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
WORKDIR = flags.DEFINE_string("workdir", str(ROOT / "runs" / "quickstart"), "Where everything goes.")


def main(_: list[str]) -> None:
    from td.reproduce import quickstart

    get_config = runpy.run_path(str(ROOT / "configs" / "digits_resnet.py"))["get_config"]
    print(quickstart.run(get_config, Path(WORKDIR.value), STARTED))


if __name__ == "__main__":
    cli.run(main)
