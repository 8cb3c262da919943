"""One progress bar for everything that takes more than a few seconds."""

import io
import multiprocessing
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

SELDOM = 30.0  # seconds between lines where standard error is no terminal
TITLE = ContextVar("title", default="")

tqdm.set_lock(threading.RLock())  # not one of all processes, a semaphore that a killed one would leave behind


def progress(entries: Iterable[Any] | None = None, disable: bool = False, **options: Any) -> tqdm:
    """A tqdm bar, on a terminal; elsewhere a line every half minute. It vanishes inside another one."""
    # Processes that another one has started show none: they would overwrite each other's.
    options |= {"disable": disable or multiprocessing.parent_process() is not None, "dynamic_ncols": True}
    options["desc"] = ": ".join(filter(None, [TITLE.get(), options.get("desc")]))
    if not sys.stderr.isatty():
        options = {"mininterval": SELDOM, "maxinterval": SELDOM, "delay": SELDOM, "file": _Lines()} | options
    return tqdm(entries, leave=None, **options)


@contextmanager
def titled(title: str) -> Iterator[None]:
    """Put a title in front of every bar of the block."""
    token = TITLE.set(title)
    try:
        yield
    finally:
        TITLE.reset(token)


class _Lines(io.StringIO):
    """Standard error as a file that gets whole lines."""

    def write(self, text: str) -> int:
        line = text.replace("\x1b[A", "").strip()  # tqdm moves the cursor
        return sys.stderr.write(f"{line}\n") if line else 0
