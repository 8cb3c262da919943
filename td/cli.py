"""What every command line shares: one clear line for a mistake, an exit code, no traceback."""

import logging
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from ml_collections import ConfigDict

from td.errors import UserError
from td.train import STOPPED, Stopped

MISTAKE = 2
"""Exit code of a mistake in what the user gave."""


def run(main: Callable[[list[str]], None]) -> None:
    """Parse the flags and run `main`; mistakes end in one line and exit code 2, a stop in exit code 75.

    Args:
      main: gets what is left of the command line.
    """
    own = logging.getLogger("td")
    own.setLevel(logging.INFO)
    own.propagate = False
    own.addHandler(logging.StreamHandler())
    app.run(lambda argv: _guarded(lambda: main(argv)), flags_parser=_parse)


def _guarded(action: Callable[[], object]) -> object:
    try:
        return action()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except (UserError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted: give the same command again to go on from the last checkpoint", 130)


def _fail(message: str, code: int = MISTAKE) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except SystemExit:
        raise
    except Exception as error:  # config files run user code, and overrides fail in many types
        _fail(_explain(error))
        raise AssertionError from None


def _explain(error: Exception) -> str:
    return str(error)


def config(holder: flags.FlagHolder[ConfigDict]) -> ConfigDict:
    """The config of a `--config` flag.

    Args:
      holder: what `DEFINE_config_file` returned.

    Returns:
      The config.

    Raises:
      UserError: the flag was not given.
    """
    if holder.value is None:
        raise UserError("no --config: give one of configs/*.py, as --config=configs/digits_resnet.py")
    return holder.value
