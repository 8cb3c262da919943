"""One self-contained page of prune curves: a chart to tick and hover over, and a table to sort and copy."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
from vl_convert import javascript_bundle

from td.errors import UserError
from td.evaluate.curve_tables import COLUMNS, COST_COLUMNS
from td.evaluate.options import DEFAULT
from td.evaluate.plots import COLOURS
from td.io.files import read_json, write_text
from td.io.run_folder import MACHINE_SETTINGS, flatten

RATES = {"prune_rate": "pruned %", "sparsity": "sparsity %"}
STATES = {"accuracy": "as trained"} | {
    field: COLUMNS[field][0].removesuffix(" %")
    for field in ("recalibrated_accuracy", "reconstructed_accuracy", "reconstructed_recalibrated_accuracy", "bleu")
}
COSTS = {field: name for field, (name, *_) in COST_COLUMNS.items() if field not in {*RATES, *STATES, "deviation"}}
FIELDS = {**RATES, **STATES, **COSTS}  # field of a row -> its name on the page

FLAGS = {"recalibrated_accuracy": "recalibrate_batch_norm", "reconstructed_accuracy": "reconstruct"}
FLAGS |= {"parameters": "compact", "bleu": "bleu"}
"""Field of a row -> the flag that measures it."""

DASHES = [[1, 0], [6, 3], [9, 3, 2, 3], [2, 3], [12, 4]]  # of the states
# With six colours, the pair repeats after 42 methods.
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")

Content = dict[str, Any]


def write_page(paths: Sequence[Path], out: Path) -> str:
    """Write the page of all prune curves in some files and folders, from result files alone."""
    runs = read_runs(paths)
    points = [point for run in runs for point in run["points"]]
    states = [state for state in STATES.values() if any(state in point for point in points)]
    charts = {x: make_chart(x, states).to_dict() for x in (*RATES.values(), *COSTS.values())}
    content = {"runs": runs, "charts": charts, "states": dict(zip(states, DASHES, strict=False))}
    content["columns"] = ["method", "seed", *FIELDS.values(), "command"]
    inline = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    page = Path(__file__).with_name("page.html").read_text()
    vega = javascript_bundle("window.vegaEmbed = vegaEmbed;")
    write_text(out, page.replace("/*VEGA*/", vega).replace("/*CONTENT*/", inline))
    return f"{len(points)} points of {len(runs)} curves: {out}"


def read_runs(paths: Sequence[Path]) -> list[Content]:
    """Read every curve, with its points as the page names them and all that is known of its run."""
    root = Path(os.path.commonpath([path.absolute() for path in paths]))
    found: dict[Path, str] = {}  # file -> folder whose curves it is compared with; "": those that are given one by one
    for path in map(Path.absolute, paths):
        given = [path] if path.is_file() else sorted(path.glob("prune_curve-*.json"))
        for file in given or sorted(path.rglob("*.json")):
            folder = file.parents[file.name.startswith("prune_curve-")]
            found.setdefault(file, "" if given or folder in (root, root.parent) else str(folder.relative_to(root)))
    runs = [run for file, folder in found.items() for run in _read(file, folder)]
    if not runs:
        raise UserError(f"no prune curves in {', '.join(map(str, paths))}: run td-prune-curve or td-sweep first")
    _tell_apart(runs)
    numbers = pd.DataFrame(runs).groupby("experiment")["method"].transform(lambda names: pd.factorize(names)[0])
    for run, number in zip(runs, numbers, strict=True):
        run |= {"colour": COLOURS[number % len(COLOURS)], "shape": SHAPES[number % len(SHAPES)]}
    return runs


def _read(path: Path, folder: str) -> list[Content]:
    """Read the curve of td-prune-curve or td-finetune, or those of td-reproduce by mode; other files have none."""
    content = read_json(path)
    known = {*content} if isinstance(content, dict) else set()
    own = {"method", "rows"} <= known
    if not own and not {"column", "curves"} <= known:
        return []
    beside = path.with_name("config.json")
    settings = flatten(content.get("config") or (read_json(beside) if beside.exists() else {}))
    place = os.path.relpath(path.parent if path.name.startswith("prune_curve-") else path.with_suffix(""))
    about = {
        "experiment": ", ".join(filter(None, [folder, settings.get("data.name"), f"{content['granularity']} pruning"])),
        "seed": settings.get("seed", content.get("seed", 0)),
        "place": place,
        "command": shlex.join(_command(content, place)),
        "config": settings,
        "tabled": not own,  # a column of a table is one method
        "made": f"{content['date']}, commit {content['commit']}, {content['hardware']['devices']}",
    }
    method, curves = content["method" if own else "column"], content.get("curves") or {content["mode"]: content["rows"]}
    return [
        {
            **about,
            "method": method if mode == "dense" else f"{method}, {mode}",
            "points": [_numbers(row) for row in rows if own or row["prune_rate"] in content["rates"]],
        }
        for mode, rows in curves.items()
    ]


def _numbers(row: Content) -> Content:
    """Name the numbers of a row, in the page's units."""
    known = {**COLUMNS, **COST_COLUMNS}
    return {name: float(f"{known[key][1] * row[key]:.8g}") for key, name in FIELDS.items() if row.get(key) is not None}


def _command(content: Content, place: str) -> list[str]:
    """List the words of the command that made a curve; of a table, that of the column up to this seed."""
    if "curves" in content:
        solved = any("reconstructed_accuracy" in rows[0] for rows in content["curves"].values())
        words = ["td-reproduce", content["table"], f"--scale={content['scale']}", f"--seeds={content['seed'] + 1}"]
        words += [f"--only={content['column']}", "--workdir=DIR", *["--reconstruct"] * solved]
        return words + [f"--set={name}={value}" for name, value in content.get("changes", {}).items()]
    rates = "--rates=" + ",".join(f"{row['prune_rate']:g}" for row in content["rows"])
    if "from" in content:
        words = ["td-finetune", f"--workdir={content['from']}", rates, f"--duration={content['duration']}"]
        return [*words, f"--granularity={content['granularity']}", f"--out={place}"]
    asked = {name: content.get(name, value) for name, value in DEFAULT._asdict().items() if name not in FLAGS.values()}
    flags = [f"--{name}={value}" for name, value in asked.items() if value != getattr(DEFAULT, name)]
    flags += [f"--{flag}" for field, flag in FLAGS.items() if content["rows"][0].get(field) is not None]
    return ["td-prune-curve", f"--workdir={place}", rates, *flags]


def _tell_apart(runs: list[Content]) -> None:
    """Add to methods of one name the settings that differ, and to runs that are still the same their places."""
    frame = pd.DataFrame(runs)
    for _, alike in frame[~frame["tabled"]].groupby(["experiment", "method"]):
        settings = pd.DataFrame([*alike["config"]], alike.index).dropna(axis="columns").astype(str)
        for name in settings.columns[settings.nunique() > 1]:
            if name not in ("seed", *MACHINE_SETTINGS) and not name.startswith("every."):
                for number, value in settings[name].items():
                    runs[number]["method"] += f", {name} {value}"
    same = itemgetter("experiment", "method", "seed")
    counted = Counter((*same(run), point["pruned %"]) for run in runs for point in run["points"])
    for run in runs:
        if any(counted[*same(run), point["pruned %"]] > 1 for point in run["points"]):
            run["method"] += f" ({run['place']})"


def make_chart(x: str, states: Sequence[str]) -> alt.TopLevelMixin:
    """Make the chart of accuracy against a rate or a cost: means over seeds, bands of a deviation, the Pareto front."""
    cost = x in COSTS.values()
    title = f"{x}, {'of the compacted network' if cost else 'after training'}"
    ticks = alt.Axis(format="~s" if x in ("parameters", "FLOPs") else ",~r", tickCount=8)
    across = alt.Scale(zero=cost, nice=False, padding=12)  # from 0: twice as far costs twice as much
    means = _means(x, states, "ascending" if cost else "descending").encode(
        x=alt.X("x:Q", title=title, scale=across, axis=ticks),
        y=alt.Y("mean:Q", title=None, scale=alt.Scale(zero=False, nice=False, padding=12)),
    )
    rings = alt.OverlayMarkDef(aria=False, filled=False, size=260, strokeWidth=3)
    steps: Any = "step-after" if cost else "step-before"
    best = means.transform_filter("front && (datum.before == null || datum.mean > datum.before)")
    front = best.mark_line(aria=False, interpolate=steps, opacity=0.25, strokeWidth=7, point=rings)
    curves = means.encode(color=alt.Color("colour:N", scale=None), detail=["method:N", "state:N"])
    band = curves.transform_filter("datum.n > 1").mark_area(opacity=0.2, aria=False).encode(y="low:Q", y2="high:Q")
    dash = alt.StrokeDash("state:N", scale=alt.Scale(domain=[*states], range=DASHES[: len(states)]), legend=None)
    line = curves.mark_line(aria=False).encode(strokeDash=dash, order="pruned %:Q")
    cost_of = alt.Tooltip("x:Q", title=x, format=",.9~r")
    dots = curves.mark_point(size=70, strokeWidth=1.5, opacity=1).encode(
        shape=alt.Shape("shape:N", scale=None),
        fill=alt.condition("datum.state == 'as trained'", alt.Fill("colour:N", scale=None), alt.value("white")),
        description="text:N",
        tooltip=["method:N", "state:N", cost_of, "score:N", "seeds:N", "config:N", "command:N"],
    )
    return (
        alt.layer(front.encode(color=alt.value("black"), order="x:Q"), band, line, dots)
        .add_params(alt.param("shown", value=[*states]), alt.param("front", value=True))
        .properties(
            title=alt.Title(alt.expr("indexof(shown, 'BLEU') < 0 ? 'accuracy %' : 'accuracy %, BLEU'"), anchor="start"),
            width="container",
            height=420,
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding", resize=True),
            description=f"Accuracy against {x}, a curve for each method. The table below has the numbers.",
        )
    )


def _means(x: str, states: Sequence[str], better: str) -> alt.Chart:
    """Average the points of a method over seeds; `before` is the best mean of all that come before it, along x."""
    order: Any = [{"field": "x", "order": better}, {"field": "mean", "order": "descending"}]
    best: Any = [{"op": "max", "field": "mean", "as": "best"}]
    before: Any = [{"op": "lag", "field": "best", "as": "before"}]
    named = {"mean": "mean", "stdev": "sd", "count": "n", "values": "rows"}
    averages: Any = [{"op": op, "field": "value", "as": name} for op, name in named.items()]
    averages.append({"op": "mean", "field": x, "as": "x"})
    return (
        alt.Chart(alt.NamedData("points"))
        .transform_fold([*states], as_=["state", "value"])
        .transform_filter(f"isValid(datum.value) && isValid(datum['{x}']) && indexof(shown, datum.state) >= 0")
        .transform_aggregate(averages, groupby=["method", "state", "colour", "shape", "pruned %"])
        .transform_window(best, sort=order, ignorePeers=True)
        .transform_window(before, sort=order)
        .transform_calculate(
            low="datum.mean - datum.sd",
            high="datum.mean + datum.sd",
            score="format(datum.mean, '.2f') + (datum.n > 1 ? ' ± ' + format(datum.sd, '.2f') : '')",
            seeds="join(pluck(datum.rows, 'seed'), ', ')",
            config="datum.rows[0].summary",
            command="datum.rows[0].command",
        )
        .transform_calculate(
            text=f"datum.method + ', ' + datum.state + ', {x} ' + format(datum.x, ',.9~r') + ': ' + datum.score"
        )
    )
