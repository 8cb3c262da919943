"""Sweeps over one config: every network trained and pruned, and the best one chosen."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from td.errors import UserError, lookup
from td.evaluate.curve_files import curve_path, write_curve
from td.evaluate.options import Options, as_trained, parse_rates
from td.io.files import Path, read_json, write_text
from td.io.run_folder import flatten
from td.sweep import hyper
from td.sweep.executors import execute
from td.sweep.hyper import Settings
from td.sweep.launch import Launch, pairs
from td.sweep.point import Point, config_file, make_config, run_name

BEST = {"mean_accuracy": ["accuracy", "recalibrated_accuracy"], "mean_bleu": ["bleu"]}
"""Criterion -> columns of a curve whose mean over the rates it is."""


def list_points(
    path: Path, arguments: str, common: Settings, choices: Sequence[str], workdir: Path, rates: str, options: Options
) -> list[Point]:
    """List the product of `SETTING=VALUE,VALUE` texts and the config's own `get_hyper`, if it has one."""
    sweeps = [hyper.sweep(name, values.split(",")) for name, values in pairs(choices, "sweep").items()]
    if get_hyper := config_file(path).get("get_hyper"):
        sweeps.append([*get_hyper(hyper)])
    found = {}
    for settings in hyper.product(sweeps):
        made = make_config(path, {**common, **settings}, arguments)
        known, folder = flatten(made.to_dict()), workdir / "runs" / run_name(path.stem, made)
        title = {name: known.get(name, value) for name, value in settings.items()}
        point = Point(title, made, folder, folder / "result.json")
        if rates:
            scored, shares = as_trained(options, made), parse_rates(rates)
            point = point._replace(
                result=curve_path(folder, scored, made),
                asked={**scored._asdict(), "rates": shares, "finished": True},
                score=partial(write_curve, folder, rates, scored, finished=True),
                scorings=len(shares) * (1 + scored.reconstruct) * (1 + scored.recalibrate_batch_norm),
            )
        found[folder] = point
    if not found:
        raise UserError(f"the get_hyper of {path} lists no settings")
    return list(found.values())


def run_sweep(points: Sequence[Point], launch: Launch, best: str = "") -> str:
    """Train and prune the networks; with `best`, a name of `BEST`, the best one comes first. Rerun to resume."""
    if best:
        lookup(BEST, best, "criterion")
        if not all(point.asked and point.config.data.validation for point in points):
            raise UserError("--best compares curves on held-out training examples: give --rates, and --validation=5000")
        if best == "mean_bleu" and not all(point.asked["bleu"] for point in points):
            raise UserError("--best=mean_bleu compares BLEU: give --bleu")
    return execute(points, launch, partial(report, points, best))


def report(points: Sequence[Point], best: str) -> str:
    """Write `sweep.csv`, and return its table."""
    criterion, path = best or "mean_accuracy", points[0].folder.parents[1] / "sweep.csv"
    lines = [{**point.title, "run": point.folder.name, "state": point.state()} for point in points]
    for point, line in zip(points, lines, strict=True):
        if line["state"] == "finished":
            line["accuracy"] = read_json(point.folder / "result.json")["accuracy"]
            if point.asked:
                rows = pd.DataFrame(read_json(point.result)["rows"]).set_index("prune_rate")
                columns = rows[BEST[criterion]].astype(float)  # as trained and recalibrated alike
                line[criterion] = columns.mean(axis="columns").mean()
                line |= {f"at {rate:g}": value for rate, value in columns.iloc[:, 0].items()}
    table = pd.DataFrame(lines)
    table = table.sort_values(best, ascending=False) if best in table else table
    write_text(path, table.to_csv(index=False))
    shown = table.drop(columns="run").to_string(index=False, na_rep="", float_format="{:.4g}".format)
    return f"{shown}\n\n{path}; compare curves: td-report --out=PICTURE.png {path.parent / 'runs'}/*"
