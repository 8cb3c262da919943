"""One self-contained page of prune curves: a chart to tick and hover over, and a table to sort and copy."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
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
FIELDS = {**RATES, **STATES, **COSTS}
"""Field of a row -> its name on the page."""

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
    write_text(out, page.replace("/*VEGA*/", javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("/*CONTENT*/", inline))
    return f"{len(points)} points of {len(runs)} curves: {out}"


def read_runs(paths: Sequence[Path]) -> list[Content]:
    """Read every curve, with its points as the page names them and all that is known of its run."""
    root = Path(os.path.commonpath([path.absolute() for path in paths]))
    found: dict[Path, str] = {}  # file -> folder whose curves it is compared with; "": those that are given one by one
    for path in map(Path.absolute, paths):
        if not path.exists():
            raise UserError(f"there is no {path}")
        given = [path] if path.is_file() else sorted(path.glob("prune_curve-*.json"))
        for file in given or sorted(path.rglob("*.json")):
            folder = file.parents[file.name.startswith("prune_curve-")]
            found.setdefault(file, "" if given or folder in (root, root.parent) else str(folder.relative_to(root)))
    runs = [run for file, folder in found.items() for run in _read(file, folder)]
    if not runs:
        raise UserError(f"no prune curves in {', '.join(map(str, paths))}: run td-prune-curve first")
    _tell_apart(runs)
    orders: dict[str, dict[str, int]] = {}
    for run in runs:
        order = orders.setdefault(run["experiment"], {})
        number = order.setdefault(run["method"], len(order))
        run |= {"colour": COLOURS[number % len(COLOURS)], "shape": SHAPES[number % len(SHAPES)]}
    return runs


def _read(path: Path, folder: str) -> list[Content]:
    """Read the curve of td-prune-curve or td-finetune, or those of td-reproduce by mode; other files have none."""
    content = read_json(path)
    own = isinstance(content, dict) and {"method", "rows"} <= {*content}
    if not own and not (isinstance(content, dict) and {"column", "curves"} <= {*content}):
        return []
    beside = path.with_name("config.json")
    settings = flatten(content.get("config") or (read_json(beside) if beside.exists() else {}))
    place = os.path.relpath(path.parent if path.name.startswith("prune_curve-") else path.with_suffix(""))
    about = {
        "experiment": ", ".join(filter(None, [folder, settings.get("data.name"), f"{content['granularity']} pruning"])),
        "seed": settings.get("seed", content.get("seed", 0)),
        "place": place,
        "command": shlex.join(_command(content, place) if own else _table_command(content)),
        "config": settings,
        "settings": settings if own else {},  # that tell methods apart; a column of a table is one method
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
    """List the words of the command that made a curve."""
    rates = "--rates=" + ",".join(f"{row['prune_rate']:g}" for row in content["rows"])
    if "from" in content:
        words = ["td-finetune", f"--workdir={content['from']}", rates, f"--duration={content['duration']}"]
        return [*words, f"--granularity={content['granularity']}", f"--out={place}"]
    asked = {name: content.get(name, value) for name, value in DEFAULT._asdict().items() if name not in FLAGS.values()}
    flags = [f"--{name}={value}" for name, value in asked.items() if value != getattr(DEFAULT, name)]
    flags += [f"--{flag}" for field, flag in FLAGS.items() if content["rows"][0].get(field) is not None]
    return ["td-prune-curve", f"--workdir={place}", rates, *flags]


def _table_command(content: Content) -> list[str]:
    """List the words of the command for a column of a table, up to this seed."""
    words = ["td-reproduce", content["table"], f"--scale={content['scale']}", f"--seeds={content['seed'] + 1}"]
    words += [f"--only={content['column']}", "--workdir=DIR"]
    words += [f"--set={name}={value}" for name, value in content.get("changes", {}).items()]
    return words + ["--reconstruct"] * any("reconstructed_accuracy" in rows[0] for rows in content["curves"].values())


def _tell_apart(runs: list[Content]) -> None:
    """Add to methods of one name the settings that differ, and to runs that are still the same their places."""
    unrelated = ("seed", "every.log", "every.checkpoint", "every.evaluation", "every.telemetry", *MACHINE_SETTINGS)
    for _, alike in pd.DataFrame(runs).groupby(["experiment", "method"]):
        settings = pd.DataFrame([run.pop("settings") for run in map(runs.__getitem__, alike.index)]).dropna(axis=1)
        settings = settings.drop(columns=[*unrelated], errors="ignore").astype(str)
        for name in settings.columns[settings.nunique() > 1]:
            for number, value in zip(alike.index, settings[name], strict=True):
                runs[number]["method"] += f", {name} {value}"

    def cells(run: Content) -> list[tuple[Any, ...]]:
        return [(run["experiment"], run["method"], run["seed"], point["pruned %"]) for point in run["points"]]

    counted = Counter(cell for run in runs for cell in cells(run))
    for run in [run for run in runs if any(counted[cell] > 1 for cell in cells(run))]:
        run["method"] += f" ({run['place']})"


def make_chart(x: str, states: Sequence[str]) -> alt.TopLevelMixin:
    """Make the chart of accuracy against a rate or a cost: means over seeds, bands of a deviation, the Pareto front.

    Its data are `points`; its parameters are the states that are `shown`, and whether the `front` is.
    """
    cost = x in COSTS.values()
    means = _means(x, states, better="ascending" if cost else "descending").encode(
        x=alt.X(
            "x:Q",
            title=f"{x}, {'of the compacted network' if cost else 'after training'}",
            scale=alt.Scale(zero=cost, nice=False, padding=12),  # twice as far costs twice as much
            axis=alt.Axis(format="~s" if x in ("parameters", "FLOPs") else ",~r", tickCount=8),
        ),
        y=alt.Y("mean:Q", title=None, scale=alt.Scale(zero=False, nice=False, padding=12)),
    )
    front = means.transform_filter("front && (datum.before == null || datum.mean > datum.before)").mark_line(
        interpolate="step-after" if cost else "step-before",
        strokeWidth=7,
        opacity=0.25,
        aria=False,
        point=alt.OverlayMarkDef(aria=False, filled=False, size=260, strokeWidth=3),
    )
    curves = means.encode(color=alt.Color("colour:N", scale=None), detail=["method:N", "state:N"])
    band = curves.transform_filter("datum.n > 1").mark_area(opacity=0.2, aria=False).encode(y="low:Q", y2="high:Q")
    dash = alt.StrokeDash("state:N", scale=alt.Scale(domain=[*states], range=DASHES[: len(states)]), legend=None)
    line = curves.mark_line(aria=False).encode(strokeDash=dash, order="pruned %:Q")
    dots = curves.mark_point(size=70, strokeWidth=1.5, opacity=1).encode(
        shape=alt.Shape("shape:N", scale=None),
        fill=alt.condition("datum.state == 'as trained'", alt.Fill("colour:N", scale=None), alt.value("white")),
        description="text:N",
        tooltip=[
            *("method:N", "state:N"),
            *(alt.Tooltip("x:Q", title=x, format=",.9~r"), alt.Tooltip("numbers:N", title="score")),
            *("seeds:N", "config:N", "command:N"),
        ],
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
    """Average the points of a method over seeds; `before` is the best mean of all better ones along x."""
    means: Any = [{"op": "mean", "field": x, "as": "x"}]
    named = {"mean": "mean", "stdev": "sd", "count": "n", "values": "rows"}
    means += [{"op": op, "field": "value", "as": name} for op, name in named.items()]
    order: Any = [{"field": "x", "order": better}, {"field": "mean", "order": "descending"}]
    best: Any = [{"op": "max", "field": "mean", "as": "best"}]
    before: Any = [{"op": "lag", "field": "best", "as": "before"}]
    return (
        alt.Chart(alt.NamedData("points"))
        .transform_fold([*states], as_=["state", "value"])
        .transform_filter(f"isValid(datum.value) && isValid(datum['{x}']) && indexof(shown, datum.state) >= 0")
        .transform_aggregate(means, groupby=["method", "state", "colour", "shape", "pruned %"])
        .transform_window(best, sort=order, ignorePeers=True)
        .transform_window(before, sort=order)
        .transform_calculate(
            low="datum.mean - datum.sd",
            high="datum.mean + datum.sd",
            numbers="format(datum.mean, '.2f') + (datum.n > 1 ? ' ± ' + format(datum.sd, '.2f') : '')",
            seeds="join(pluck(datum.rows, 'seed'), ', ')",
            config="datum.rows[0].summary",
            command="datum.rows[0].command",
        )
        .transform_calculate(
            text=f"datum.method + ', ' + datum.state + ', {x} ' + format(datum.x, ',.9~r') + ': ' + datum.numbers"
        )
    )
