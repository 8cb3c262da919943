"""One progress bar for everything that takes more than a few seconds."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(entries: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar that redraws often on a terminal and seldom in a log file; it vanishes inside another one."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(
        entries, leave=None, mininterval=interval, maxinterval=max(10.0, interval), dynamic_ncols=True, **options
    )
