"""Runs that end early on purpose: SIGTERM is noticed, the state is saved, the same command goes on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import jax

from td.io import hosts

STOPPED = 75
"""Exit code of a run that SIGTERM stopped: saved, to be continued with the same command (sysexits' EX_TEMPFAIL)."""


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, step: int) -> None:
        """Say where."""
        super().__init__(f"stopped at step {step} and saved: give the same command again to go on")


@contextmanager
def sigterm() -> Iterator[Callable[[int], bool]]:
    """Listen for SIGTERM for as long as the block lasts."""
    if jax.process_count() > 1:
        yield hosts.stop_agreed
        return
    arrived = Event()
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.set())
    try:
        yield lambda _: arrived.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
