"""The run folder: one process at a time, and one config permanently."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import PurePath
from typing import Any

import filelock
from etils import epath
from ml_collections import ConfigDict

from td.errors import UserError
from td.io import hosts
from td.io.files import Path, absolute, read_json, write_json, write_text

LOG = logging.getLogger(__name__)

TEXTS = tuple(f"data.{split}_{side}" for split in ("train", "test") for side in ("source", "target"))
MACHINE_SETTINGS = ("data.data_dir", "data.cache_dir", "data.workers", *TEXTS)
"""Settings that say where things are on this machine, not what is computed."""

RESUMABLE_SETTINGS = (*MACHINE_SETTINGS, "data.skip_corrupt")
"""Settings that may change when a run resumes: these, and what to do about an image that cannot be read."""

FORMER_NAMES = {"mask.min_kept": "mask.spare"}
FORMER_NAMES |= {"optim.ema_decay": "optim.average", "optim.gate_lr_multiplier": "optim.gate_rate"}
"""Setting -> its name in runs of td 0.1, which are still read, and by which runs are named."""

NETWORK = "network.safetensors"  # file of a network alone, in a copy of a run
SECTIONS = ("model", "data", "mask", "optim", "every")  # sections of every config


class Busy(UserError):
    """Another process works in this folder."""


@contextmanager
def lock(workdir: Path, config: ConfigDict, identity: str | None = None) -> Iterator[None]:
    """Lock a folder for a run of this config and data until the block ends; raises UserError if it is another run's."""
    with ExitStack() as stack:

        def acquire() -> None:
            stack.enter_context(_acquire(workdir))
            if (workdir / NETWORK).exists():
                raise UserError(
                    f"{workdir} has a network without its optimizer, and cannot be trained on: choose another"
                )
            if (workdir / "config.json").exists():
                _check_config(workdir, config)
                check_data(workdir, identity)
                record(workdir, config, identity)  # with the settings that may change

        hosts.check_alike("config", json.dumps(computed(config), sort_keys=True))
        hosts.on_first(acquire)
        yield


def _acquire(workdir: Path) -> AbstractContextManager[Any]:
    if "[" in str(absolute(workdir)):
        raise UserError(f"workdir {absolute(workdir)} has a '[', where Orbax finds no checkpoints: rename it")
    if isinstance(workdir, epath.Path):
        LOG.warning("%s is in a store, which has no locks: let no other process use it", workdir)
        return nullcontext()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        return filelock.FileLock(workdir / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise Busy(f"another process is using {workdir}: wait for it, or choose another folder") from None


def _check_config(workdir: Path, config: ConfigDict) -> None:
    theirs, ours = computed(load_config(workdir)), computed(config)
    pairs = [(name, *(flat.get(name, "(not set)") for flat in (theirs, ours))) for name in {**theirs, **ours}]
    differing = [f"{name} is {there!r} there, {here!r} here" for name, there, here in pairs if there != here]
    if differing:
        raise UserError(f"{workdir} belongs to another config: {'; '.join(differing)}; choose another folder")


def computed(config: ConfigDict) -> dict[str, Any]:
    """Settings that decide what is computed, as JSON has them."""
    settings = flatten(json.loads(config.to_json()))
    return {name: value for name, value in settings.items() if name not in RESUMABLE_SETTINGS}


def check_data(workdir: Path, identity: str | None) -> None:
    """Raise UserError if the run in a folder learned from other data."""
    path = workdir / "data.json"
    if identity is not None and path.exists() and read_json(path)["identity"] != identity:
        raise UserError(f"the run in {workdir} was trained on other data: give those, or choose another folder")


def record(workdir: Path, config: ConfigDict, identity: str | None) -> None:
    """Write the config of a run, and the identity of data that have no name."""
    write_text(workdir / "config.json", config.to_json(indent=2) + "\n")
    if identity:
        write_json(workdir / "data.json", {"identity": identity})


def portable(config: ConfigDict) -> ConfigDict:
    """Copy a config without the folders of this machine."""
    settings = config.to_dict()
    for name in MACHINE_SETTINGS:
        settings["data"].pop(name.removeprefix("data."), None)
    for section, name in (("data", "path"), ("start", "workdir")):
        if settings[section].get(name):
            settings[section][name] = PurePath(settings[section][name]).name
    return ConfigDict(settings)


def load_config(workdir: Path) -> ConfigDict:
    """Read the config of a run."""
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"no run in {workdir}: there is no config.json; train first with td-train (scripts/train.py)")
    config = read_json(path)
    for name, former in FORMER_NAMES.items():
        (section, new), old = name.split("."), former.split(".")[1]
        own = section == "mask" and ":" in config["mask"]["name"]  # a method of your own may have such a setting
        if old in config.get(section, {}) and not own:
            config[section][new] = config[section].pop(old)
    config.get("start", {}).setdefault("reconstruct_examples", 0)  # of a run before there was reconstruction
    return ConfigDict(config)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every setting by its full path."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat
