"""Which runs a table needs: one config each, named by its hash."""

import hashlib
import json
import runpy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

from td.errors import UserError, check_at_least, check_choice, nearest
from td.io.run_folder import MACHINE_SETTINGS, flatten
from td.kernels import KERNELS
from td.reproduce.request import SCALES
from td.reproduce.table import Network, Table
from td.train.durations import expand_percent

T = TypeVar("T")

TOP = ("duration", "kernels")
"""Settings without a dot in their name."""

UNNAMED: dict[str, Any] = {
    "rng": "threefry2x32",
    "data.path": "",
    "model.stem_stride": 1,
    "optim.begin": "0 steps",
    "start.workdir": "",
    "start.prune_rate": 0.0,
}
"""Settings that are not part of a run's name at these values: published runs were named before there were such."""

FORMER_NAMES = {"mask.min_kept": "mask.spare"}
FORMER_KERNELS = {KERNELS: r"^(?!(.*/)?(stem|logits|embedding)(/|$))"}
"""The pattern that a run is named by: published runs had the second, which chooses the same kernels of our networks."""

RECALIBRATION = {"paper": 20, "short": 20, "small": 8, "cpu": 4, "smoke": 1}
"""Training batches of 500 that BatchNorm statistics are estimated from."""


class Job(NamedTuple):
    """One training run of one table."""

    table: str  # the table's name
    network: Network  # of the table
    seed: int  # of the run
    config: ConfigDict  # all of its settings
    run: str  # the name of its run folder, the same wherever the config is the same
    changes: Mapping[str, str] = {}  # settings that the command changed
    searched: Mapping[str, Any] = {}  # settings that were tuned at this scale


def list_jobs(
    folder: Path,
    name: str,
    table: Table,
    scale: str,
    seeds: int,
    only: Sequence[str] = (),
    changes: Mapping[str, str] | None = None,
) -> list[Job]:
    """List the runs of a table, the first seed of every column first."""
    check_choice("scale", scale, SCALES)
    check_at_least("seeds", seeds, 1)
    chosen = [network for network in table.networks if not only or network.column in only]
    listed, changes = [], changes or {}
    for seed in range(seeds):
        for network in chosen:
            config = experiment(folder, network, scale, seed, changes)
            own = {key: value for key, value in tuned(folder, network, scale).items() if key not in changes}
            listed.append(Job(name, network, seed, config, run_name(network.config, config), changes, own))
    return listed


@cache
def _card(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path))


def tuned(folder: Path, network: Network, scale: str) -> Mapping[str, Any]:
    """Settings that were tuned at a scale and replace a column's own."""
    numbers = _card(folder / f"{network.config}.py").get("TUNED", {}).get(scale, {})
    return numbers.get((network.settings.get("mask"), network.settings.get("granularity", "weight")), {})


def experiment(folder: Path, network: Network, scale: str, seed: int, changes: Mapping[str, str]) -> ConfigDict:
    """Make the config of one run: its config file at a scale, the column's settings, then the command's changes."""
    settings = {key: value for key, value in network.settings.items() if "." in key or key in TOP}
    arguments = {key: value for key, value in network.settings.items() if key not in settings} | {"scale": scale}
    get_config = _card(folder / f"{network.config}.py")["get_config"]
    config = get_config(",".join(f"{key}={value}" for key, value in arguments.items()))
    known = flatten(config.to_dict())
    for key, value in settings.items():
        if key not in known:
            raise UserError(f"{network.config} has no setting {key!r}: {nearest(key, known)}")
        if key not in tuned(folder, network, scale):
            config.update_from_flattened_dict({key: value})
    for key, text in changes.items():
        if key in known:
            config.update_from_flattened_dict({key: convert(key, text, known[key])})
    config.seed = seed
    return expand_percent(config).lock()


def convert(key: str, text: str, old: Any) -> Any:
    """A setting given as text, as a value of the old one's type."""
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, tuple | list):
            return tuple(convert(key, part, old[0] if old else "") for part in text.split(","))
        return type(old)(text)
    except (KeyError, ValueError):
        raise UserError(f"{key}={text!r} is not of type {type(old).__name__}") from None


def run_name(card: str, config: ConfigDict) -> str:
    """Name a run so that the same config has the same name, and another one another.

    Example:
      >>> from td.train.config import method, skeleton
      >>> config = skeleton()
      >>> config.mask = method("none")
      >>> run_name("digits_resnet", config)[:25]
      'digits_resnet-none-seed0-'
    """
    named = {key: value for key, value in flatten(config.to_dict()).items() if key not in MACHINE_SETTINGS}
    named["kernels"] = FORMER_KERNELS.get(named["kernels"], named["kernels"])
    named = {FORMER_NAMES.get(key, key): value for key, value in named.items()}
    settings = {key: value for key, value in named.items() if UNNAMED.get(key) != value}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    method = config.mask.name.replace(":", ".")  # of an import path: not every file system takes a colon
    return f"{card}-{method}-seed{config.seed}-{digest}"


def part_of(listed: Sequence[T], part: str) -> list[T]:
    """The i-th of n parts of a list, as equal as can be; all of it where no part is given."""
    if not part:
        return list(listed)
    number, _, count = part.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"part {part!r} is out of range: give i/n with i from 1 to n, as 1/4")
    return list(listed)[int(number) - 1 :: int(count)]
