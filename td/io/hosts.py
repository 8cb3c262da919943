"""Several hosts that train together: each runs the same program, one writes the files, all decide alike."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from td.errors import UserError

IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
"""XLA flag: CPUs run sums in the order of the program, mostly (see `td.train.devices.state_shardings`)."""


def join(hosts: str) -> None:
    """Make this process one of several, through `jax.distributed`. Comes before anything that needs a device.

    Example:
      >>> join("3/2@localhost:1234")
      Traceback (most recent call last):
        ...
      td.errors.UserError: hosts '3/2@localhost:1234' is not understood: give i/n@address:port, i from 1 to n, ...
    """
    if not hosts:
        return
    found = re.fullmatch(r"(\d+)/(\d+)@(.+:\d+)", hosts)
    if hosts != "auto" and not (found and 1 <= int(found[1]) <= int(found[2])):
        raise UserError(
            f"hosts {hosts!r} is not understood: give i/n@address:port, i from 1 to n, as 1/2@10.0.0.1:1234, or auto"
        )
    process = (found[3], int(found[2]), int(found[1]) - 1) if found else ()
    # First, because XLA silently ignores what follows a word without dashes.
    os.environ["XLA_FLAGS"] = f"{IN_ORDER} {os.environ.get('XLA_FLAGS', '')}"
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # and two programs one after the other
    try:
        jax.distributed.initialize(*process)
    except (RuntimeError, ValueError) as error:
        advice = "; nobody here says who they are: give i/n@address:port" if hosts == "auto" else ""
        raise UserError(f"hosts {hosts!r} cannot train together: {str(error).splitlines()[0]}{advice}") from None


def is_first() -> bool:
    """Whether this host is the one that writes and shows what all have found out."""
    return jax.process_index() == 0


def own_folder(folder: Path) -> Path:
    """Where a host writes what it alone has seen, its log: in the run's folder, or for all but the first below it."""
    own = folder if is_first() else folder / "hosts" / str(jax.process_index() + 1)
    own.mkdir(parents=True, exist_ok=True)
    return own


def on_first(action: Callable[[], object]) -> None:
    """Do something on the first host, and let the others go on when it is done.

    Example:
      >>> on_first(lambda: print("once"))
      once
    """
    if jax.process_count() == 1:
        action()
        return
    error = None
    if is_first():
        try:
            action()
        except (UserError, OSError) as caught:
            error = caught
    failed = bool(multihost_utils.broadcast_one_to_all(np.array(error is not None)))
    if error is not None:
        raise error
    if failed:
        raise UserError("the first host has stopped; it says why")


def check_alike(what: str, text: str) -> None:
    """Refuse, on all hosts, what is not the same on each of them.

    Example:
      >>> check_alike("config", "{}")
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if np.any(multihost_utils.process_allgather(digest) != digest):  # which each of them finds
        raise UserError(
            f"the hosts have not all been given the same {what}: give the same command on each, but --hosts"
        )


def stop_agreed(step: int) -> bool:
    """Whether a host was told to stop (SIGTERM), and this is the step at which all of them do."""
    return bool(multihost_utils.reached_preemption_sync_point(step))


def fetch(values: Any) -> Any:
    """Whole arrays, also where hosts hold parts of them. Every host must ask."""

    def whole(leaf: Any) -> Any:
        parted = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        return multihost_utils.process_allgather(leaf, tiled=True) if parted else leaf

    return jax.device_get(jax.tree.map(whole, values))
