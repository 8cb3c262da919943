"""The result files of a table, read back: cells with their seeds, and what is missing, failed or damaged."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import filelock

from td.errors import UserError, check_choice
from td.evaluate.prune_curve import Row
from td.io.run_folder import read_json, write_json
from td.reproduce.claims import Cell
from td.reproduce.jobs import Job
from td.reproduce.request import SCALES
from td.reproduce.result_file import checked
from td.reproduce.table import paper_mode


class Mean(NamedTuple):
    """A cell over its seeds; `deviation` is the sample's, None for a single one."""

    mean: float
    deviation: float | None
    n: int


class Results(NamedTuple):
    """All that is known of a table.

    Attributes:
      scale: at which it was run.
      files: the contents of the result files.
      missing: column, rates, seed and state of the runs that were asked for and are not there.
      damaged: result files that cannot be read, with the reason.
      requested: the number of seeds asked for, by column.
      changes: the settings that commands changed, by column.
    """

    scale: str
    files: tuple[dict[str, Any], ...]
    missing: tuple[tuple[str, tuple[float, ...], int, str], ...]
    damaged: tuple[str, ...]
    requested: dict[str, int]
    changes: dict[str, dict[str, str]]

    def rows(self, scoring: str, cell: Cell) -> list[Row]:
        """The points of a cell, one a seed."""
        column, rate = cell
        own = [file for file in self.files if file["column"] == column and rate in file["rates"]]
        curves = [file["curves"].get(mode_of(file, scoring), ()) for file in own]
        return [Row(**row) for curve in curves for row in curve if row["prune_rate"] == rate]


def mode_of(file: Mapping[str, Any], scoring: str) -> str:
    """The mode in which a scoring shows a network.

    Example:
      >>> file = {"settings": {"mask": "targeted"}, "granularity": "weight"}
      >>> mode_of(file, "dense"), mode_of(file, "paper")
      ('dense', 'prune_targets')
    """
    return paper_mode(file["settings"]["mask"], file["granularity"]) if scoring == "paper" else "dense"


def mean(values: Sequence[float]) -> Mean | None:
    """Mean and sample standard deviation.

    Example:
      >>> mean([1.0, 3.0])
      Mean(mean=2.0, deviation=1.4142135623730951, n=2)
      >>> mean([1.0])
      Mean(mean=1.0, deviation=None, n=1)
    """
    if not values:
        return None
    return Mean(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def read_plan(path: Path) -> dict[str, Any]:
    """What was asked for."""
    plan = read_json(path)
    try:
        check_choice("scale", plan["scale"], SCALES)
        [(entry["column"], tuple(entry["rates"]), entry["seed"], entry["run"]) for entry in plan["jobs"]]
    except (TypeError, KeyError, UserError) as error:
        raise UserError(
            f"{path} is not a plan ({error}): delete it and give the td-reproduce commands of this folder again, which "
            "skip what is finished"
        ) from None
    return dict(plan)


def write_plan(folder: Path, name: str, scale: str, listed: Sequence[Job]) -> None:
    """Add jobs to what was asked for in this folder; two commands at once do so one after the other."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / name / ".plan.lock"):
        _add_to_plan(folder, name, scale, listed)


def _add_to_plan(folder: Path, name: str, scale: str, listed: Sequence[Job]) -> None:
    path = folder / name / "plan.json"
    known: dict[str, Any] = read_plan(path) if path.exists() else {"scale": scale, "jobs": []}
    if known["scale"] != scale:
        raise UserError(
            f"{folder} has {name} at scale {known['scale']}: give --scale={known['scale']} or another folder"
        )
    entries = {entry["run"]: entry for entry in known["jobs"]}
    for job in listed:
        entry: dict[str, Any] = {"column": job.network.column, "rates": list(job.network.rates), "seed": job.seed}
        others = [old for old in entries.values() if all(old[key] == value for key, value in entry.items())]
        if others and others[0]["run"] != job.run:
            raise UserError(
                f"{folder / name} was made by another version of this experiment, or with other settings: "
                f"{job.network.column} with seed {job.seed} is {others[0]['run']} there, {job.run} here; "
                "choose another folder"
            )
        entries[job.run] = {**entry, "run": job.run, **({"changes": dict(job.changes)} if job.changes else {})}
    write_json(path, {"scale": scale, "jobs": list(entries.values())})


def failure_path(folder: Path, name: str, run: str) -> Path:
    """Where it is written why a run failed."""
    return folder / name / f"{run}.failed.txt"


def progress_of(folder: Path, name: str, run: str) -> str:
    """How far a run of a table is."""
    if (path := folder / name / f"{run}.json").exists():
        try:
            checked(read_json(path))
        except UserError:
            return "damaged"
        return "finished"
    if failure_path(folder, name, run).exists():
        return "failed"
    return "begun" if (folder / "runs" / run / "config.json").exists() else "to do"


def collect(folder: Path, name: str) -> Results:
    """Read everything there is of a table."""
    path = folder / name / "plan.json"
    if not path.is_file():
        raise UserError(f"no results of {name} in {folder}: run td-reproduce {name} --workdir={folder} first")
    plan = read_plan(path)
    files, missing, damaged = [], [], []
    for entry in plan["jobs"]:
        result = folder / name / f"{entry['run']}.json"
        if not result.exists():
            missing.append(
                (entry["column"], tuple(entry["rates"]), entry["seed"], progress_of(folder, name, entry["run"]))
            )
            continue
        try:
            files.append(checked(read_json(result)))
        except UserError as error:
            damaged.append(f"{result}: {error}; the same td-reproduce command makes it anew")
    scales = {plan["scale"], *(content["scale"] for content in files)}
    if len(scales) > 1:
        raise UserError(f"{folder / name} mixes the scales {', '.join(sorted(scales))}: keep one folder for each")
    asked = dict.fromkeys((entry["column"], entry["seed"]) for entry in plan["jobs"])  # in order, unlike a set
    counts = dict(Counter(column for column, _ in asked))
    changes = {part["column"]: part["changes"] for part in (*plan["jobs"], *files) if "changes" in part}
    return Results(plan["scale"], tuple(files), tuple(missing), tuple(damaged), counts, changes)
