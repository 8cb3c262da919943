"""Checkpoints through Orbax, with a digest, so that a damaged one is noticed and the one before is used."""

import hashlib
import logging
import re
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from td import _tree
from td.errors import UserError
from td.io import hosts
from td.io.files import Path, absolute

LOG = logging.getLogger(__name__)

KEEP = 2  # number of checkpoints that stay: the newest, and the one before in case it is damaged


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        self.folder = folder
        self.read_only = read_only
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else KEEP,
            cleanup_tmp_directories=not read_only,  # left half-written by a killed run
            enable_async_checkpointing=False,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(absolute(folder), options=options)

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Write a checkpoint; older ones are removed only after it is complete."""
        if step in self._manager.all_steps():
            return
        state_args = ocp.args.PyTreeSave(jax.tree.leaves(state))
        facts_args = ocp.args.JsonSave({"digest": digest(state), "leaves": describe(state)})
        try:
            self._manager.save(step, args=ocp.args.Composite(state=state_args, facts=facts_args), force=True)
        except Exception as error:  # the layers below report a full disk in many types of their own
            where = f"checkpoint {step} in {self.folder}"
            raise UserError(f"cannot write {where}: {_reason(error)}; make room and rerun the same command") from error

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints of later steps."""
        for later in [saved for saved in self.steps() if saved > step]:
            self._manager.delete(later)

    def restore(self, like: Any, at: int | None = None) -> tuple[int, Any] | None:
        """Read the newest intact checkpoint, of step `at` or before. Returns its step and a state `like` the given one.

        Damaged ones are reported, and moved next to the folder, to `damaged-*`, once an older one could be read.
        """
        steps, damaged = [step for step in self.steps() if at is None or step <= at], []
        for step in reversed(steps):
            try:
                state = self._read(step, like)
            except (UserError, MemoryError):
                raise
            except Exception as error:  # damage shows as dozens of types, from JSON to zstd
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                    raise  # as too many open files
                LOG.warning(
                    "checkpoint %d in %s is damaged, trying the one before: %s", step, self.folder, _reason(error)
                )
                damaged.append(step)
                continue
            if damaged and not self.read_only:
                hosts.on_first(lambda: self._set_aside(damaged))
                self._manager.reload()
            return step, state
        if steps:
            raise UserError(f"no checkpoint in {self.folder} can be read: delete {self.folder.parent} to start again")
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

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            before = len(list(self.folder.parent.glob(f"damaged-{step}-*")))
            (self.folder / str(step)).rename(self.folder.with_name(f"damaged-{step}-{before}"))


def describe(state: Any) -> dict[str, str]:
    """Name the dtype and shape of every leaf, by path."""
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _tree.named_leaves(state).items()}


def check_same_network(saved: dict[str, str], wanted: dict[str, str], where: str) -> None:
    """Raise UserError if a checkpoint's leaves, as `describe` names them, are not those of the state to fill."""
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


def _reason(error: BaseException) -> str:
    """One line; TensorStore has the system's error at the end of a long one."""
    found = re.search(r": ([^:]+) \[os_error_code=", str(error))
    return found[1] if found else (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
