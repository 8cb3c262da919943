"""Sweeps over one config: every network trained and pruned, and the best one chosen."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from td.errors import UserError, lookup
from td.evaluate.curve_files import curve_path, write_curve
from td.evaluate.options import Options, as_trained, parse_rates
from td.io.cli import ConfigFlag
from td.io.files import read_json, write_json
from td.io.run_folder import flatten
from td.sweep import hyper
from td.sweep.executors import execute
from td.sweep.hyper import Settings
from td.sweep.launch import Launch, pairs
from td.sweep.point import Point, config_file, make_config, run_name

BEST = {"mean_accuracy": ["accuracy", "recalibrated_accuracy"], "mean_bleu": ["bleu"]}
"""Criterion -> columns of a curve whose mean over the rates it is."""


def list_points(
    config: ConfigFlag, choices: Sequence[str], fixed: Settings, workdir: Path, rates: str, options: Options
) -> list[Point]:
    """List the product of `SETTING=VALUE,VALUE` texts and the config's own `get_hyper`, if it has one."""
    sweeps = [hyper.sweep(name, values.split(",")) for name, values in pairs(choices, "sweep").items()]
    if get_hyper := config_file(config.path).get("get_hyper"):
        sweeps.append([*get_hyper(hyper)])
    found = {}
    for settings in hyper.product(sweeps):
        made = make_config(config.path, {**config.overrides, **fixed, **settings}, config.arguments)
        known, folder = flatten(made.to_dict()), workdir / "runs" / run_name(config.path.stem, made)
        title = {name: known.get(name, value) for name, value in settings.items()}
        point = Point(title, made, folder, folder / "result.json")
        if rates:
            scored, shares = as_trained(options, made), parse_rates(rates)
            point = point._replace(
                result=curve_path(folder, scored, made),
                asked={**scored._asdict(), "rates": shares},
                score=partial(write_curve, folder, rates, scored, finished=True),
                scorings=len(shares) * (1 + scored.reconstruct) * (1 + scored.recalibrate_batch_norm),
            )
        found[folder] = point
    return list(found.values())


def run_sweep(points: Sequence[Point], launch: Launch, best: str = "") -> str:
    """Train and prune the networks; with `best`, a name of `BEST`, the best one comes first. Rerun to resume."""
    if best:
        lookup(BEST, best, "criterion")
        if not all(point.asked and point.config.data.validation for point in points):
            raise UserError("--best compares curves on held-out training examples: give --rates, and --validation=5000")
    return execute(points, launch, partial(report, points, best))


def report(points: Sequence[Point], best: str) -> str:
    """Write `sweep.json`, and return its table."""
    criterion, workdir = best or "mean_accuracy", points[0].folder.parents[1]
    entries = [_entry(point, criterion) for point in points]
    if best:
        entries.sort(key=lambda entry: entry.get(criterion, -1.0), reverse=True)
    write_json(workdir / "sweep.json", {"points": entries})
    lines = tabulate([_line(entry, criterion) for entry in entries], headers="keys", disable_numparse=True)
    return f"{lines}\n\n{workdir / 'sweep.json'}; compare curves: td-report --out=PICTURE.png {workdir / 'runs'}/*"


def _entry(point: Point, criterion: str) -> dict[str, Any]:
    entry = {"settings": dict(point.title), "run": point.folder.name, "state": point.state()}
    if entry["state"] != "finished":
        return entry
    entry["accuracy"] = read_json(point.folder / "result.json")["accuracy"]
    if not point.asked:
        return entry
    rows = read_json(point.result)["rows"]
    values = pd.DataFrame(rows)[BEST[criterion]].astype(float)  # as trained and recalibrated alike
    return {**entry, criterion: float(values.mean(axis="columns").mean()), "rows": rows}


def _line(entry: Mapping[str, Any], criterion: str) -> dict[str, str]:
    shown = {name: f"{v:g}" if isinstance(v, float) else str(v) for name, v in entry["settings"].items()}
    shown["state"] = entry["state"]
    if "accuracy" in entry:
        shown["accuracy %"] = f"{100 * entry['accuracy']:.1f}"
    if "rows" in entry:
        shown[f"{criterion} %"] = f"{entry[criterion] * (1 if criterion == 'mean_bleu' else 100):.1f}"
        shown[f"at {100 * entry['rows'][-1]['prune_rate']:g} %"] = f"{100 * entry['rows'][-1]['accuracy']:.1f}"
    return shown
