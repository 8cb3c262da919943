"""Several hosts that train together: each runs the same program, one writes the files, all decide alike."""

import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from td.errors import UserError
from td.io.files import Path

IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
"""XLA flag: CPUs run sums in the order of the program, mostly (see `td.train.devices.state_shardings`)."""


def join(hosts: str) -> None:
    """Make this process one of several, through `jax.distributed`. Comes before anything that needs a device."""
    if not hosts:
        return
    found = re.fullmatch(r"(\d+)/(\d+)@(.+:\d+)", hosts)
    if hosts != "auto" and not (found and 1 <= int(found[1]) <= int(found[2])):
        raise UserError(f"hosts {hosts!r} is not understood: give i/n@address:port, i from 1 to n, or auto")
    # First, because XLA silently ignores what follows a word without dashes.
    os.environ["XLA_FLAGS"] = f"{IN_ORDER} {os.environ.get('XLA_FLAGS', '')}"
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # and two programs one after the other
    try:
        jax.distributed.initialize(*((found[3], int(found[2]), int(found[1]) - 1) if found else ()))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"hosts {hosts!r} cannot train together: {str(error).splitlines()[0]}") from None


def is_first() -> bool:
    """True on the host that writes files and shows progress for all."""
    return jax.process_index() == 0


def own_folder(folder: Path) -> Path:
    """The folder of a host's own log: the run's for the first host, one below it for the others."""
    own = folder if is_first() else folder / "hosts" / str(jax.process_index() + 1)
    own.mkdir(parents=True, exist_ok=True)
    return own


def on_first(action: Callable[[], object]) -> None:
    """Do something on the first host, and let the others continue when it is done."""
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
        raise UserError("the first host has stopped: see its error")


def check_alike(what: str, text: str) -> None:
    """Raise UserError on all hosts unless the text is the same on each of them."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if np.any(multihost_utils.process_allgather(digest) != digest):
        raise UserError(f"the hosts have not the same {what}: run the same command on each, except for --hosts")


def fetch(values: Any) -> Any:
    """Copy arrays to the host, also those of which each host holds a part. Every host must call it."""

    def whole(leaf: Any) -> Any:
        parted = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        return multihost_utils.process_allgather(leaf, tiled=True) if parted else leaf

    return jax.device_get(jax.tree.map(whole, values))
