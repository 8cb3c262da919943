"""One progress bar for everything that takes more than a few seconds."""

import multiprocessing
import sys
import threading
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

tqdm.set_lock(threading.RLock())  # not one of all processes, a semaphore that a killed one would leave behind


def progress(entries: Iterable[Any] | None = None, disable: bool = False, **options: Any) -> tqdm:
    """A tqdm bar that redraws often on a terminal and seldom in a log file; it vanishes inside another one.

    Processes that another one has started show none: they would overwrite each other's.
    """
    interval = 0.1 if sys.stderr.isatty() else 30.0
    options |= {"disable": disable or multiprocessing.parent_process() is not None, "dynamic_ncols": True}
    return tqdm(entries, leave=None, mininterval=interval, maxinterval=max(10.0, interval), **options)
