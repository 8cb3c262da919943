"""Runs that end early on purpose: SIGTERM or Ctrl-C is noticed, the state is saved, the same command goes on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax

from td.io import hosts

STOPPED = 75
"""Exit code of a run that SIGTERM stopped: saved, to be continued with the same command (sysexits' EX_TEMPFAIL)."""


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, where: str) -> None:
        """Say where."""
        super().__init__(f"stopped {where} and saved: give the same command again to go on")


@contextmanager
def listening() -> Iterator[Callable[[int], bool]]:
    """Listen for SIGTERM and Ctrl-C for as long as the block lasts; a second Ctrl-C interrupts at once.

    What an inner block has heard the one around it has heard as well: a run that is stopped while it saves its last
    checkpoint finishes, and whatever would come after it does not begin.
    """
    if jax.process_count() > 1:
        yield hosts.stop_agreed
        return
    if threading.current_thread() is not threading.main_thread():  # Python hands signals to the main thread alone
        yield lambda _: False
        return
    arrived = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        arrived.set()
        around = before[number]
        if callable(around) and around is not signal.default_int_handler:
            around(number, frame)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before: dict[int, Any] = {}
    for own in (signal.SIGTERM, signal.SIGINT):
        before[own] = signal.signal(own, hear) or signal.SIG_DFL
    try:
        yield lambda _: arrived.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
