"""The runs of a request: a config each, named by its hash; the plan of a folder, and the state of each run."""

import hashlib
import json
import runpy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from ml_collections import ConfigDict

from td.errors import UserError, check_at_least, check_choice, lookup, nearest
from td.io.files import read_json, write_json
from td.io.run_folder import FORMER_NAMES, MACHINE_SETTINGS, flatten
from td.kernels import KERNELS
from td.reproduce.table import Network, Settings, Table, load_table
from td.train.config import TRACED, convert, expand_percent

SCALES = ("paper", "short", "small", "cpu", "smoke")
TOP = ("duration", "kernels")  # settings without a dot in their name

UNNAMED: dict[str, Any] = {"rng": "threefry2x32", "data.path": "", "model.stem_stride": 1}
UNNAMED |= {"optim.begin": "0 steps", "start.workdir": "", "start.prune_rate": 0.0, "mask.over": "unit"}
UNNAMED["start.reconstruct_examples"] = 0
"""Settings that are not part of a run's name at these values: published runs were named before there were such."""

FORMER_KERNELS = dict.fromkeys((TRACED, KERNELS), r"^(?!(.*/)?(stem|logits|embedding)(/|$))")
"""The pattern that runs are named by, which published runs had: it chooses the same kernels of our networks."""


class Request(NamedTuple):
    """Tables to reproduce at a scale.

    Attributes:
      configs: Folder of config files.
      tables: Names of tables, or files of your own.
      folder: Folder for all runs, results and reports.
      changes: Settings to change, as text.
      scale: Size of the runs: paper, short, small, cpu or smoke.
      seeds: Runs of each network.
      only: Column to restrict the table to; repeat it for several.
      retry_failed: Try failed runs again.
      reconstruct: Also score with the kept weights solved again layer by layer (td.reconstruct).

    Rarely needed:
      part: i/n: do the i-th of n parts of the runs.
      data_note: Remark on the data, for the captions.
    """

    configs: Path
    tables: tuple[str, ...]
    folder: Path
    scale: str = "paper"
    seeds: int = 3
    only: tuple[str, ...] = ()
    reconstruct: bool = False
    part: str = ""
    data_note: str = ""
    retry_failed: bool = False
    changes: Mapping[str, str] = {}


class Job(NamedTuple):
    """One training run of one table."""

    table: str  # name of the table
    network: Network
    seed: int
    config: ConfigDict  # all settings
    run: str  # name of the run folder, the same wherever the config is the same
    changes: Settings  # that the command changed, as text
    tuned: Settings  # that were tuned at this scale


def planned(request: Request) -> list[tuple[Table, Job]]:
    """List the jobs of a request, before it is split into parts."""
    if "seed" in request.changes:
        raise UserError("--set=seed would be that of every run: --seeds=3 trains seeds 0, 1 and 2")
    tables = {Path(name).stem: load_table(request.configs, name) for name in request.tables}
    columns = dict.fromkeys(column for table in tables.values() for column in table.columns())
    for column in request.only:
        lookup(columns, column, "column")
    found = []
    for name, table in tables.items():
        jobs = list_jobs(request.configs, name, table, request.scale, request.seeds, request.only, request.changes)
        found += [(table, job) for job in jobs]
    settings = dict.fromkeys(setting for _, job in found for setting in flatten(job.config.to_dict()))
    for setting in request.changes:
        lookup(settings, setting, "setting")
    return found


def part_of(found: Sequence[tuple[Table, Job]], part: str) -> list[tuple[Table, Job]]:
    """Select the i-th of n parts of the runs; a run that several tables share is in one part."""
    number, _, count = (part or "1/1").partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"part {part!r} is out of range: give i/n with i from 1 to n, as 1/4")
    runs = list(dict.fromkeys(job.run for _, job in found))[int(number) - 1 :: int(count)]
    return [(table, job) for table, job in found if job.run in runs]


def list_jobs(
    folder: Path, name: str, table: Table, scale: str, seeds: int, only: Sequence[str] = (), changes: Any = None
) -> list[Job]:
    """List the runs of a table, the first seed of every column first."""
    check_choice("scale", scale, SCALES)
    check_at_least("seeds", seeds, 1)
    jobs, changes = [], changes or {}
    for seed in range(seeds):
        for network in table.networks:
            if not only or network.column in only:
                config = experiment(folder, network, scale, seed, changes)
                own = {key: value for key, value in tuned(folder, network, scale).items() if key not in changes}
                jobs.append(Job(name, network, seed, config, run_name(Path(network.config).name, config), changes, own))
    return jobs


@cache
def _config_file(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path))


def tuned(folder: Path, network: Network, scale: str) -> Settings:
    """Return the settings that were tuned at a scale; they replace a column's own."""
    numbers = _config_file(folder / f"{network.config}.py").get("TUNED", {}).get(scale, {})
    return numbers.get((network.settings.get("mask"), network.settings.get("granularity", "weight")), {})


def experiment(folder: Path, network: Network, scale: str, seed: int, changes: Settings) -> ConfigDict:
    """Make the config of one run: its config file at a scale, the column's settings, then the command's changes."""
    settings = {key: value for key, value in network.settings.items() if "." in key or key in TOP}
    arguments = {key: value for key, value in network.settings.items() if key not in settings} | {"scale": scale}
    get_config = _config_file(folder / f"{network.config}.py")["get_config"]
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


def run_name(name: str, config: ConfigDict) -> str:
    """Name a run by its config: equal configs have equal names, different ones different names."""
    named = {key: value for key, value in flatten(config.to_dict()).items() if key not in MACHINE_SETTINGS}
    named["kernels"] = FORMER_KERNELS.get(named["kernels"], named["kernels"])
    named = {FORMER_NAMES.get(key, key): value for key, value in named.items()}
    settings = {key: value for key, value in named.items() if UNNAMED.get(key) != value}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    method = config.mask.name.replace(":", ".")  # of an import path: not every file system takes a colon
    return f"{name}-{method}-seed{config.seed}-{digest}"


def write_plan(folder: Path, name: str, scale: str, jobs: Sequence[Job]) -> None:
    """Add jobs to the request of a folder."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / name / "plan.json"
    with filelock.FileLock(folder / name / ".plan.lock"):  # two commands may write at once
        plan: dict[str, Any] = read_json(path) if path.exists() else {"scale": scale, "jobs": []}
        if plan["scale"] != scale:
            raise UserError(f"{folder} has {name} at scale {plan['scale']}: give that --scale, or another folder")
        entries = {entry["run"]: entry for entry in plan["jobs"]}
        for job in jobs:
            entry = {"column": job.network.column, "rates": list(job.network.rates), "seed": job.seed}
            run = next((run for run, known in entries.items() if entry.items() <= known.items()), job.run)
            if run != job.run:
                raise UserError(f"{job.network.column} is another run in {folder / name}: choose another folder")
            entries[run] = {**entry, "run": run, **({"changes": dict(job.changes)} if job.changes else {})}
        write_json(path, {"scale": scale, "jobs": list(entries.values())})


def result_path(folder: Path, name: str, run: str) -> Path:
    """Name the result file of a run; next to it, .failed.txt says why a run failed."""
    return folder / name / f"{run}.json"


def progress_of(folder: Path, name: str, run: str) -> str:
    """Return the state of a run: to do, started, failed or finished."""
    path, started = result_path(folder, name, run), (folder / "runs" / run / "config.json").exists()
    if path.exists():
        return "finished"
    return "failed" if path.with_suffix(".failed.txt").exists() else "started" if started else "to do"
