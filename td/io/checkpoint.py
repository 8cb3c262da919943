"""Checkpoints through Orbax, with a digest, so that a damaged one is noticed and the one before is used."""

import errno
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from td import tree
from td.errors import UserError
from td.io import hosts

LOG = logging.getLogger(__name__)

KEEP = 2
"""Checkpoints that stay: the newest, and the one before in case it is damaged."""


class Checkpoints:
    """The checkpoints of one run folder.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> with Checkpoints(Path(tempfile.mkdtemp())) as checkpoints:
      ...     checkpoints.save(5, {"w": jnp.ones(2)})
      ...     step, state = checkpoints.restore({"w": jnp.zeros(2)})
      >>> step, state["w"].tolist()
      (5, [1.0, 1.0])
    """

    def __init__(self, folder: Path, read_only: bool = False, still_there: Callable[[], None] = lambda: None) -> None:
        """Open the folder; `still_there` is asked before every save, and raises where it must not be."""
        self.folder = folder
        self.read_only = read_only
        self._still_there = still_there
        for half_written in [] if read_only else sorted(folder.glob("*.orbax-checkpoint-tmp*")):
            LOG.warning("%s was left half-written by a killed run: removing it", half_written)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else KEEP,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=False,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Write a checkpoint; older ones are removed only after it is complete."""
        if step in self._manager.all_steps():
            return
        self._still_there()
        state_args = ocp.args.PyTreeSave(jax.tree.leaves(state))
        facts_args = ocp.args.JsonSave({"digest": digest(state), "leaves": describe(state)})
        try:
            if not self._manager.save(step, args=ocp.args.Composite(state=state_args, facts=facts_args)):
                raise ValueError("Orbax has one of a later step, and skips it")
        except Exception as error:  # the layers below report a full disk in many types of their own
            kept = [saved for saved in self.steps() if (self.folder / str(saved)).is_dir()]
            raise UserError(
                f"cannot write checkpoint {step} in {self.folder}: {_first_line(error)}; make room for it there and "
                f"give the same command again, it goes on from step {kept[-1] if kept else 0}"
            ) from error

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints of later steps, from which nothing goes on."""
        for later in [saved for saved in self.steps() if saved > step]:
            self._manager.delete(later)

    def restore(self, like: Any, at: int | None = None) -> tuple[int, Any] | None:
        """Read the newest checkpoint that is whole.

        A damaged one is reported and, unless read-only, moved to `damaged/` beside the others, but only once an older
        one could be read: where none can, nothing is touched.
        """
        steps, damaged = [step for step in self.steps() if at is None or step <= at], []
        for step in reversed(steps):
            try:
                state = self._read(step, like)
            except (UserError, MemoryError, PermissionError):
                raise
            except Exception as error:  # damage shows as dozens of types, from JSON to zstd
                if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
                    raise
                LOG.warning(
                    "checkpoint %d in %s is damaged, trying the one before: %s", step, self.folder, _first_line(error)
                )
                damaged.append(step)
                continue
            for bad in damaged:
                self._set_aside(bad)
            return step, state
        if steps:
            result = self.folder.parent / "result.json"
            beside = f", and {result}," if result.exists() else ""
            raise UserError(f"no checkpoint in {self.folder} can be read: delete that folder{beside} to start again")
        return None

    def _read(self, step: int, like: Any) -> Any:
        facts = self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
        check_same_network(facts["leaves"], describe(like), f"checkpoint {step} in {self.folder}")
        leaves, treedef = jax.tree.flatten(like)
        target = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves]
        args = ocp.args.PyTreeRestore(target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))
        restored = self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        state = jax.tree.unflatten(treedef, restored)
        if digest(state) != facts["digest"]:
            raise ValueError("its content does not match its digest")
        return state

    def _set_aside(self, step: int) -> None:
        if self.read_only:
            return
        damaged = self.folder.parent / "damaged"

        def move() -> None:
            damaged.mkdir(exist_ok=True)
            number = len(list(damaged.iterdir()))
            (self.folder / str(step)).rename(damaged / f"{step}-{number}")

        hosts.on_first(move)
        self._manager.reload()


def describe(state: Any) -> dict[str, str]:
    """Say the dtype and shape of every leaf, by path."""
    leaves = jax.tree.leaves(state)
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in zip(tree.paths(state), leaves, strict=True)}


def check_same_network(saved: dict[str, str], wanted: dict[str, str], where: str) -> None:
    """Refuse a checkpoint whose leaves are not those of the state it should fill.

    Example:
      >>> check_same_network({"w": "float32[2]"}, {"w": "float32[3]"}, "checkpoint 7")
      Traceback (most recent call last):
        ...
      td.errors.UserError: checkpoint 7 is of another network: w is float32[2] there, float32[3] here
    """
    for path in {**wanted, **saved}:
        there, here = saved.get(path, "missing"), wanted.get(path, "missing")
        if there != here:
            raise UserError(f"{where} is of another network: {path} is {there} there, {here} here")


def digest(state: Any) -> str:
    """SHA-256 over the bytes of every leaf, in flattening order."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        total.update(np.ascontiguousarray(hosts.fetch(leaf)).tobytes())
    return total.hexdigest()


def _first_line(error: BaseException) -> str:
    system = re.search(r": ([^:]+) \[os_error_code=", str(error))  # at the end of a TensorStore's long line
    if system:
        return system[1]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
