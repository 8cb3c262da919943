"""A table's report, from its result files alone: Markdown, CSV, LaTeX and pictures."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from td.io.files import write_text
from td.reproduce import plots, table1
from td.reproduce.claims import FAILS, Measured, at_sparsity, judge
from td.reproduce.results import Results, View, collect, markdown, notes, published, views
from td.reproduce.table import Table, is_file_name, load_table

SCALE_MEANS = {
    "paper": "network and schedule as in the config, those of the paper where it has them",
    "short": "the paper's network, about a tenth of its schedule",
    "small": "a smaller network, a short schedule: to be compared with the published differences, not with the values",
    "cpu": "a smaller network, a short schedule: not to be compared with the published values cell by cell",
    "smoke": "a few steps of a toy, only to see that everything works: no value here means anything",
}

JUDGED = (
    "A claim without a margin fails at a tie, and every claim fails whose better cell is within 1 point of chance, "
    "{chance:g} %. Inconclusive: the 95 % confidence interval of the difference contains the margin (a paired t-test's "
    "where a column is compared with itself, else Welch's). (n = 1): a cell that decides has a single seed, and the "
    "verdict is that of the values alone. Not a test: a network is compared with itself, or with itself at chance. "
    "Open: a cell has no result. @89: the measured sparsity in per cent where it is more than two points from the rate"
    ", as it includes what the method or the mode removes itself."
)

TELEMETRY = (
    "Targets are the lowest-ranked fraction of the weights: the method's own targets, else 75 %. How many of "
    "them are others a step later, at a tenth, at the half and at the end of the run; the median magnitude of a "
    "target and of the other weights at the end; the fraction of units without any weight, scored dense, at 50, 70 and "
    "90 % where the table has these rates; and the first prune rate at which a whole layer is empty. "
    "Of several seeds the picture has the first."
)

FORMATS = {"sparsity": "{:.6f}", "n": "{:g}", "mean": "{:.4f}", "deviation": "{:.4f}", "published": "{}"}
FORMATS |= {"difference": "{:.4f}", "dead_units": "{:.6f}", "empty_layers": "{:g}"}
"""Numbers of every cell in the CSV file, with their formats."""


def write_report(configs: Path, folder: Path, name: str) -> Path:
    """Write the report of a table, a name or a file of your own; returns its Markdown file."""
    name = Path(name).stem if is_file_name(name) else name
    own, path = folder / name / f"{name}.py", folder / f"{name}.md"
    table, results = load_table(configs, str(own) if own.exists() else name), collect(folder, name)
    typed = commands(f"./{own.name}" if own.exists() else name, results, len(table.columns()))
    parts = [f"# {table.title}", caption(results), typed]
    if table.measure == "change_of_loss":
        parts += table1.sections(table, results, path)
    elif found := views(table, results):
        plots.heat_maps(table.title, found, path)
        plots.curves(table.title, found, path.with_name(f"{name}-curves.md"))
        parts += [f"![{table.title}]({name}.png)", f"![Prune curves]({name}-curves.png)"]
        parts += [section(view, results) for view in found]
        parts += [verdicts(table, found)] if table.claims else []
        parts += telemetry(table, results, path.with_name(f"{name}-telemetry.md"))
        write_text(path.with_suffix(".tex"), latex(table, found))
        write_csv(path.with_suffix(".csv"), found)
    parts += [doubts(table), runs(table, results)]
    if (by_hand := folder / name / "findings.md").is_file():
        parts.append(f"## Findings\n\n{by_hand.read_text().strip()}")
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    return path


def caption(results: Results) -> str:
    """List scale, data, hardware, versions, dates and commits of all result files."""

    def each(values: Iterable[str]) -> str:
        return "; ".join(dict.fromkeys(values))

    files, scale = results.files, f"Scale: **{results.scale}** ({SCALE_MEANS[results.scale]})."
    if not files:
        return f"{scale}\nNo run is finished."
    made = [part for file in files for part in (file["training"], file)]
    dates = sorted(part["date"][:10] for part in made)
    machines = (part["hardware"] for part in made)
    hardware = each(f"{m['devices']}, {m['processor']}, {m['cores']} cores" for m in machines)
    note = each(file["note"] for file in files if file.get("note"))
    own = {file["column"]: file["searched"] for file in files if file.get("searched")}
    tuned = "; ".join(f"{column} {', '.join(f'{k}={v:g}' for k, v in found.items())}" for column, found in own.items())
    lines = [
        scale,
        f"Tuned at this scale, instead of the paper's numbers: {tuned}." if tuned else "",
        f"Data: {each(file['config']['data']['name'] for file in files)}{f' ({note})' if note else ''}.",
        f"Hardware: {hardware}; {each('jax ' + part['versions']['jax'] for part in made)}.",
        f"Dates: {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; commits: {each(p['commit'] for p in made)}.",
    ]
    return "\n".join(filter(None, lines))


def commands(name: str, results: Results, columns_of_table: int) -> str:
    """List the commands for the same runs: columns that share changed settings, and seeds."""
    lines, requested = [], results.requested
    scored = [(file["column"], curve) for file in results.files for curve in file.get("curves", {}).values()]
    reconstructed = {column for column, curve in scored if curve[0].get("reconstructed_accuracy") is not None}
    changed = {column: tuple(results.changes.get(column, {}).items()) for column in requested}
    for sets in dict.fromkeys(changed.values()):
        alike = [column for column in requested if changed[column] == sets]
        for seeds in sorted({requested[column] for column in alike}):
            columns = [column for column in alike if requested[column] >= seeds]
            words = ["python", "scripts/reproduce.py", name, f"--scale={results.scale}", f"--seeds={seeds}"]
            words += ["--reconstruct"] * any(column in reconstructed for column in columns)
            words += ["--workdir=DIR", *(f"--set={setting}={value}" for setting, value in sets)]
            words += [f"--only={column}" for column in columns] if len(columns) < columns_of_table else []
            lines.append(shlex.join(words))
    return "\n".join(f"    {line}" for line in lines)


def _spread(cell: Any) -> str:
    """Format mean and deviation, e.g. 91.0 ± 0.5."""
    return f"{cell['mean']:.1f}" + ("" if math.isnan(cell["deviation"]) else f" ± {cell['deviation']:.1f}")


def _text(cell: Any, requested: Mapping[str, int]) -> str:
    """Format a cell, e.g. 91.0 ± 0.5 [2 of 3] (92.6, -1.6) @89."""
    column, rate = cell.name
    paper = "" if math.isnan(cell["published"]) else f"{cell['published']:.1f}{'†' if cell['doubted'] else ''}"
    if math.isnan(cell["mean"]):
        return f"missing ({paper})" if paper else ""
    shown = _spread(cell)
    shown += f" [{cell['n']:g} of {requested[column]}]" if cell["n"] < requested.get(column, 0) else ""
    shown += f" ({paper}, {cell['difference']:+.1f})" if paper else ""
    return shown + at_sparsity(rate, 100 * cell["sparsity"])


def section(view: View, results: Results) -> str:
    """Format one view of a table."""
    lines = view.cells.apply(_text, axis=1, requested=results.requested).unstack("column", sort=False)
    n = view.cells["n"].groupby(level="column").max().fillna(0)
    ends = (100 * view.grid("sparsity")).agg(["min", "max"], axis=1).map("{:.1f}".format, na_action="ignore")
    lines.columns = [f"{column} (n={n[column]:g})" for column in lines]
    lines.insert(0, "pruned %", [f"{100 * rate:g}" for rate in lines.index])
    lines.insert(1, "sparsity %", ["-".join(dict.fromkeys(both.dropna())) for _, both in ends.iterrows()])
    how = "Ours, mean ± standard deviation over seeds (published, difference)."
    return f"## {view.title}\n\n{view.sentence()} {how}\n\n{markdown(lines, stralign='right')}"


def latex(table: Table, found: Sequence[View]) -> str:
    """Format all views for LaTeX with booktabs: means and deviations only."""
    parts = []
    for view in found:
        cells = view.cells.dropna(subset="mean").apply(_spread, axis=1)
        lines = cells.reindex(view.cells.index, fill_value="").unstack("column", sort=False)
        lines.insert(0, "pruned %", [f"{100 * rate:g}" for rate in lines.index])
        body = markdown(lines, tablefmt="latex_booktabs", stralign="right")
        parts.append(f"% {table.title}: {view.title}, scale {view.scale}\n{body}")
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, found: Sequence[View]) -> None:
    """Write every cell of every view, one a line."""
    *about, _ = View._fields
    known = (view.cells.dropna(subset="mean").assign(**dict(zip(about, view, strict=False))) for view in found)
    cells = pd.concat(known).reset_index()
    for name, spec in FORMATS.items():
        cells[name] = cells[name].map(spec.format, na_action="ignore")
    write_text(path, cells[[*about, "column", "mode", "prune_rate", *FORMATS]].to_csv(index=False))


def verdicts(table: Table, found: Sequence[View]) -> str:
    """Judge every claim in the published values and in every view of their quantity."""
    quantity, name = next(iter(table.published.items()))
    theirs = {cell: Measured((value,)) for cell, value in published(name)["published"].items()}
    cells = {"published": theirs} if theirs else {}
    for view in found:
        known = view.cells.dropna(subset="mean")
        if view.quantity == quantity:
            cells[view.title] = {cell: Measured(row["seeds"], 100 * row["sparsity"]) for cell, row in known.iterrows()}
    lines = []
    for claim in table.claims:
        lines.append([claim.text])
        for heading, known in cells.items():
            outcome, detail, single_seed = judge(claim, known.get, table.chance)
            word = f"**{outcome}**" if outcome == FAILS else outcome
            lines[-1].append(f"{word}{' (n = 1)' if single_seed and heading != 'published' else ''}: {detail}")
    text = markdown(pd.DataFrame(lines, columns=["claim", *cells]))
    return f"## Claims of the paper\n\n{JUDGED.format(chance=table.chance)}\n\n{text}"


def doubts(table: Table) -> str:
    """List the published cells that are wrong or weak."""
    lines = [
        f"- {note.column}, {note.first:g} to {note.last:g} %: {note.note}."
        for name in table.published.values()
        for note in notes(name).itertuples()
    ]
    return "\n".join(["## † Published cells in doubt", "", *lines]) if lines else ""


def telemetry(table: Table, results: Results, path: Path) -> list[str]:
    """Describe how stable the targets were and what pruning emptied; draws both over training."""
    watched = [file for file in _in_order(table, results) if file.get("telemetry")]
    if not watched:
        return []
    plots.targets(table, results.scale, watched, path)
    heads = ["column", "seed", "changed a step %", "target", "other", "dead units %", "empty layer from"]
    lines = [[table.label(file), str(file["seed"]), *_watched(file)] for file in watched]
    text = markdown(pd.DataFrame(lines, columns=heads))
    return [f"## Telemetry\n\n{TELEMETRY}\n\n{text}", f"![Targets over training]({path.stem}.png)"]


def _watched(file: dict[str, Any]) -> list[str]:
    lines = file["telemetry"]
    moments = [next(line for line in lines if line["step"] >= part * lines[-1]["step"]) for part in (0.1, 0.5, 1.0)]
    changed = " / ".join(f"{100 * line['targets/changed']:.2f}" for line in moments)
    sizes = [f"{lines[-1].get(f'targets/{side}_50', math.nan):.4f}" for side in ("inside", "outside")]
    points = file["curves"]["dense"]
    dead = " / ".join(f"{100 * point['dead_units']:.1f}" for point in points if point["prune_rate"] in (0.5, 0.7, 0.9))
    empty = next((f"{100 * point['prune_rate']:g} %" for point in points if point["empty_layers"]), "none")
    return [changed, *sizes, dead, empty]


def _in_order(table: Table, results: Results) -> list[dict[str, Any]]:
    """Sort result files by column, rates and seed."""
    order = {column: number for number, column in enumerate(table.columns())}
    return sorted(results.files, key=lambda file: (order.get(file["column"], -1), file["rates"], file["seed"]))


def runs(table: Table, results: Results) -> str:
    """List every run with its accuracy, and the missing ones."""
    lines = []
    for file in _in_order(table, results):
        training = file["training"]
        rate = next((f"{v:.0f} {k.removesuffix('_per_second')}" for k, v in training.items() if "per_second" in k), "")
        numbers = [f"{100 * training['accuracy']:.1f}", str(training["steps"]), f"{training['parameters']:,}", rate]
        lines.append([table.label(file), str(file["seed"]), *numbers, file["run"]])
    heads = ["column", "seed", "accuracy % unpruned", "steps", "parameters", "a second", "run"]
    gone = [f"- missing: {table.label(run)}, seed {run['seed']} ({run['state']})" for run in results.missing]
    parts = ["## Runs", markdown(pd.DataFrame(lines, columns=heads)), "\n".join(gone)]
    return "\n\n".join(filter(None, parts))
