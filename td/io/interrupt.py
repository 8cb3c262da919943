"""Runs that end early on purpose: SIGTERM or Ctrl-C saves the state, rerun the same command to resume."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils

STOPPED = 75  # exit code of a run that SIGTERM stopped after saving its state (sysexits' EX_TEMPFAIL)


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, where: str) -> None:
        super().__init__(f"stopped {where} and saved: rerun the same command to resume")


class _Handler:
    """Remembers that a signal arrived; a second Ctrl-C interrupts at once."""

    arrived = False

    def __call__(self, *_: object) -> None:
        self.arrived = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def listening() -> Iterator[Callable[[int], bool]]:
    """Listen for SIGTERM and Ctrl-C in the block. Yields `step -> whether to stop`; several hosts agree on a step."""
    current = signal.getsignal(signal.SIGTERM)
    if jax.process_count() > 1:
        yield lambda step: bool(multihost_utils.reached_preemption_sync_point(step))
    elif threading.current_thread() is not threading.main_thread():  # Python hands signals to the main thread alone
        yield lambda _: False
    elif isinstance(current, _Handler):  # of a block around this one: what would come after this does not start either
        yield lambda _: current.arrived
    else:
        handler = _Handler()
        before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield lambda _: handler.arrived
        finally:
            for number, old in before.items():
                signal.signal(number, old)


@contextmanager
def at_once() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end a block at once, within `listening` too: it has nothing to save."""
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("before the end of an evaluation") from None
    finally:
        for number, old in before.items():
            signal.signal(number, old)
