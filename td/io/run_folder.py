"""The run folder: one process at a time, one config for good, and files that are never half-written."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import filelock
from ml_collections import ConfigDict

from td.errors import UserError
from td.io import hosts
from td.io.files import replacing

TEXTS = tuple(f"data.{split}_{side}" for split in ("train", "test") for side in ("source", "target"))
MAY_DIFFER = ("data.data_dir", "data.cache_dir", "data.workers", *TEXTS)
"""Settings that say where things lie on this machine, not what is computed."""

MAY_CHANGE = (*MAY_DIFFER, "data.skip_corrupt")
"""Settings that a run may go on with others of: these, and what to do about an image that cannot be read."""

ADDED: dict[str, Any] = {
    "rng": "threefry2x32",
    "data.path": "",
    "model.stem_stride": 1,
    "optim.begin": "0 steps",
    "start.workdir": "",
    "start.prune_rate": 0.0,
}
"""Settings that older configs lack, with what these runs did."""


SCORED_ON = " scored on "
"""In what says which text a run learned from: what stands behind it, older runs have not recorded."""


SECTIONS = ("model", "data", "mask", "optim", "every")
"""What the config of every run has."""


class Busy(UserError):
    """Another process works in this folder."""


@contextmanager
def locked(workdir: Path) -> Iterator[Callable[[], None]]:
    """Make the folder if need be and hold it for this process; gives a check that the folder is still that one.

    The lock goes with the process, however it ends.
    """
    if "[" in str(workdir.absolute()):
        raise UserError(f"workdir {workdir.absolute()} has a '[', behind which Orbax finds no checkpoint: rename it")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(workdir / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise Busy(f"another process is using {workdir}: wait for it, or choose another folder") from None
    except OSError as error:
        raise UserError(f"cannot write to workdir {workdir}: {error.strerror or error}") from None
    held = (workdir / ".lock").stat()

    def still_there() -> None:
        path = workdir / ".lock"
        if not path.exists() or not os.path.samestat(path.stat(), held):
            raise UserError(f"{workdir} was removed or moved under this run: nothing more is written there")

    try:
        yield still_there
    finally:
        lock.release()


@contextmanager
def claimed(workdir: Path, config: ConfigDict, identity: str | None = None) -> Iterator[Callable[[], None]]:
    """Lock a run's folder and claim it; of several hosts, the first one does so for all. Gives `locked`'s check."""
    with ExitStack() as stack:
        checks: list[Callable[[], None]] = []

        def take() -> None:
            checks.append(stack.enter_context(locked(workdir)))
            claim(workdir, config)
            if identity is not None:
                claim_data(workdir, identity, write=True)

        same = {name: value for name, value in flatten(json.loads(config.to_json())).items() if name not in MAY_CHANGE}
        hosts.check_alike("config", json.dumps(same, sort_keys=True))
        hosts.on_first(take)
        yield checks[0] if checks else lambda: None


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every setting by its full path.

    Example:
      >>> flatten({"a": {"b": 1}, "c": 2})
      {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def claim(workdir: Path, config: ConfigDict) -> None:
    """Write `config.json`, or check that the one that is there says the same; where things lie may be new."""
    path = workdir / "config.json"
    text = config.to_json(indent=2)
    if path.exists():
        theirs, ours = flatten(read_object(path)), flatten(json.loads(text))
        names = [name for name in {**theirs, **ours} if name not in MAY_CHANGE]
        pairs = [(name, *(flat.get(name, ADDED.get(name, "(not set)")) for flat in (theirs, ours))) for name in names]
        differing = [f"{name} is {there!r} there, {here!r} here" for name, there, here in pairs if there != here]
        if differing:
            raise UserError(f"{workdir} belongs to another config: {'; '.join(differing)}; choose another folder")
        if all(theirs.get(name) == ours.get(name) for name in MAY_CHANGE):
            return
    write_text(path, text + "\n")


def claim_data(workdir: Path, identity: str, *, write: bool) -> None:
    """Write what a run learns from, or check that it is still the same."""
    path = workdir / "data.json"
    recorded = read_object(path, "identity")["identity"] if path.exists() else ""
    if recorded not in ("", identity, identity.partition(SCORED_ON)[0]):
        advice = "give those, or choose another folder"
        raise UserError(f"the data are not those that the run in {workdir} learned from: {advice}")
    if write and identity != recorded:
        write_json(path, {"identity": identity})


def load_config(workdir: Path) -> ConfigDict:
    """Read the config of a run."""
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"no run in {workdir}: there is no config.json; train first with td-train (scripts/train.py)")
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(section), dict) for section in SECTIONS):
        raise UserError(f"cannot read {path}: it is not a config of a run")
    flat = flatten(content)
    for name, value in ADDED.items():
        section, _, setting = name.rpartition(".")
        if name not in flat and section != "model":  # a network has defaults of its own
            target = content.setdefault(section, {}) if section else content
            target[setting] = value
    return ConfigDict(content)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def read_object(path: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON file that has an object with some keys."""
    content = read_json(path)
    if not isinstance(content, dict) or not set(needed) <= set(content):
        lacking = f" with {', '.join(needed)}" if needed else ""
        raise UserError(f"{path} is damaged, no JSON object{lacking}: restore it, or choose another folder")
    return content


def write_text(path: Path, text: str) -> None:
    """Replace a text file whole."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file whole."""
    write_text(path, json.dumps(content, indent=2) + "\n")
