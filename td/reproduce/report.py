"""A table's report, from its result files alone: Markdown, CSV, LaTeX and pictures."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from td.io.files import write_text
from td.reproduce import figure1, plots
from td.reproduce.claims import FAILS, Cell, Measured, Verdict, at_sparsity, judge
from td.reproduce.published import Value, notes, published
from td.reproduce.results import Mean, Results, collect, mode_of
from td.reproduce.table import Table, load_table
from td.reproduce.table_files import latex, write_csv
from td.reproduce.telemetry_section import telemetry
from td.reproduce.views import Grid, grids, in_cells, sentence

SCALE_MEANS = {
    "paper": "the paper's network and schedule",
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


def write_report(configs: Path, folder: Path, name: str) -> Path:
    """Write everything there is to say of a table."""
    table, results = load_table(configs, name), collect(folder, name)
    path = folder / f"{name}.md"
    given = commands(name, results.scale, results.requested, results.changes, len(table.columns()))
    parts = [f"# {table.title}", caption(results), given]
    if table.measure == "change_of_loss":
        parts += figure1.sections(table, results, folder / name, path)
    else:
        found = grids(table, results)
        if found:
            plots.heat_maps(table.title, found, path)
            plots.curves(table.title, found, path.with_name(f"{name}-curves.md"))
            parts += [f"![{table.title}]({name}.png)", f"![Prune curves]({name}-curves.png)"]
            write_csv(path.with_suffix(".csv"), found)
            write_text(path.with_suffix(".tex"), latex(table, found))
        parts += [section(table, grid, results) for grid in found]
        parts += [verdicts(table, found)] if table.claims and found else []
        parts += telemetry(table, results, path)
    parts += [doubts(table), runs(table, results), findings(folder / name)]
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    return path


def caption(results: Results) -> str:
    """Scale, hardware, versions, dates and commits of all result files, each once."""

    def each(values: Iterable[Any]) -> str:
        return "; ".join(dict.fromkeys(str(value) for value in values))

    files = results.files
    parts = [part for file in files for part in (file["training"], file)]
    dates, commits = sorted({part["date"][:10] for part in parts}), [part["commit"] for part in parts]
    searched = {file["column"]: file["searched"] for file in files if file.get("searched")}
    own = [f"{column} {', '.join(f'{k}={v:g}' for k, v in found.items())}" for column, found in searched.items()]
    lines = [
        f"Scale: **{results.scale}** ({SCALE_MEANS[results.scale]}).",
        *([f"Searched for at this scale, in the place of the paper's numbers: {'; '.join(own)}."] if own else []),
        f"Data: {each(file['config']['data']['name'] for file in files)}"
        + "".join(f" ({note})" for note in [each(file["note"] for file in files if file.get("note"))] if note)
        + ".",
        f"Hardware: {each(_hardware(part['hardware']) for part in parts)}; "
        f"{each('jax ' + part['versions']['jax'] for part in parts)}.",
        f"Dates: {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; commits: {each(commits)}."
        if dates
        else "No run is finished.",
    ]
    return "\n".join(lines if files else lines[:1] + lines[-1:])


def commands(
    name: str, scale: str, requested: Mapping[str, int], changes: Mapping[str, Mapping[str, str]], columns_of_table: int
) -> str:
    """What to type for the same runs: seeds and changed settings by column.

    Example:
      >>> print(commands("table4", "cpu", {"none": 2, "targeted .5/.5": 1}, {"none": {}}, 2))
          python scripts/reproduce.py table4 --scale=cpu --seeds=1 --workdir=DIR
          python scripts/reproduce.py table4 --scale=cpu --seeds=2 --workdir=DIR --only=none
      >>> print(commands("table4", "cpu", {"none": 1, "l0": 1}, {"none": {"rng": "rbg"}}, 2))
          python scripts/reproduce.py table4 --scale=cpu --seeds=1 --workdir=DIR --set=rng=rbg --only=none
          python scripts/reproduce.py table4 --scale=cpu --seeds=1 --workdir=DIR --only=l0
    """
    lines = []
    changed = {column: tuple(changes.get(column, {}).items()) for column in requested}
    for sets in dict.fromkeys(changed.values()):
        alike = [column for column in requested if changed[column] == sets]
        for seeds in sorted({requested[column] for column in alike}):
            columns = [column for column in alike if requested[column] >= seeds]
            words = ["python", "scripts/reproduce.py", name, f"--scale={scale}", f"--seeds={seeds}", "--workdir=DIR"]
            words += [f"--set={setting}={value}" for setting, value in sets]
            words += [f"--only={column}" for column in columns] if len(columns) < columns_of_table else []
            lines.append(shlex.join(words))
    return "\n".join(f"    {line}" for line in lines)


def _hardware(hardware: dict[str, Any]) -> str:
    return f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores"


def cell_text(ours: Mean | None, theirs: Value | None, requested: int, dagger: bool, between: str = " ± ") -> str:
    """A cell: ours, mean and deviation, and in brackets the published value and the difference.

    Example:
      >>> cell_text(Mean(91.0, 0.5, 2), Value(92.6), 3, False)
      '91.0 ± 0.5 [2 of 3] (92.6, -1.6)'
    """
    paper = "" if theirs is None else f"{theirs.mean:.1f}" + ("†" if dagger else "")
    if ours is None:
        return "" if theirs is None else f"missing ({paper})"
    shown = f"{ours.mean:.1f}" + ("" if ours.deviation is None else f"{between}{ours.deviation:.1f}")
    shown += f" [{ours.n} of {requested}]" if ours.n < requested else ""
    return shown + ("" if theirs is None else f" ({paper}, {ours.mean - theirs.mean:+.1f})")


def _lines(grid: Grid, results: Results, table: Table, between: str = " ± ") -> list[list[str]]:
    doubted = notes(table.published[grid.view.quantity])

    def cell(column: str, rate: float) -> str:
        dagger = any(note.covers(column, round(100 * rate, 6)) for note in doubted)
        key = (column, rate)
        count = results.requested.get(column, 0)
        text = cell_text(grid.ours.get(key), grid.published.get(key), count, dagger, between)
        return text + (at_sparsity(rate, grid.sparsity[key]) if key in grid.sparsity else "")

    lines = []
    for rate in grid.rates:
        measured = sorted(
            {f"{grid.sparsity[c, rate]:.1f}" for c in grid.columns if (c, rate) in grid.sparsity}, key=float
        )
        zeros = "-".join(measured[:1] + measured[1:][-1:])
        lines.append([f"{100 * rate:g}", zeros, *(cell(column, rate) for column in grid.columns)])
    return lines


def section(table: Table, grid: Grid, results: Results) -> str:
    """One view of a table as Markdown."""
    heads = ["pruned %", "measured %", *(f"{c} (n={_most(grid, c)})" for c in grid.columns)]
    text = tabulate(_lines(grid, results, table), heads, tablefmt="github", disable_numparse=True, stralign="right")
    how = "Ours, mean ± standard deviation over seeds (published, difference)."
    return f"## {grid.view.title}\n\n{sentence(grid)} {how}\n\n{text}"


def _most(grid: Grid, column: str) -> int:
    return max((value.n for (name, _), value in grid.ours.items() if name == column), default=0)


def verdicts(table: Table, found: Sequence[Grid]) -> str:
    """Every claim, judged in every view of its quantity and in the published numbers themselves."""
    main = next(iter(table.published))
    theirs = in_cells(published(table.published[main]))
    judged = [grid for grid in found if grid.view.quantity == main]
    lines = []
    for claim in table.claims:
        paper = judge(claim, lambda cell: Measured((theirs[cell].mean,)) if cell in theirs else None, table.chance)
        ours = [judge(claim, partial(_measured, grid), table.chance) for grid in judged]
        lines.append([claim.text, *map(_verdict, [paper._replace(single_seed=False), *ours])])
    heads = ["claim", "published", *(grid.view.title for grid in judged)]
    text = tabulate(lines, heads, tablefmt="github", disable_numparse=True)
    return f"## Claims of the paper\n\n{JUDGED.format(chance=table.chance)}\n\n{text}"


def _measured(grid: Grid, cell: Cell) -> Measured | None:
    if cell not in grid.ours:
        return None
    return Measured(grid.seeds[cell], grid.sparsity[cell])


def _verdict(verdict: Verdict) -> str:
    word = f"**{verdict.outcome}**" if verdict.outcome == FAILS else verdict.outcome
    return f"{word}{' (n = 1)' * verdict.single_seed}: {verdict.detail}"


def doubts(table: Table) -> str:
    """The published cells that are wrong or weak."""
    lines = [
        f"- {note.column}, {note.first:g} to {note.last:g} %: {note.text}."
        for name in table.published.values()
        for note in notes(name)
    ]
    return "\n".join(["## † Published cells in doubt", "", *lines]) if lines else ""


def runs(table: Table, results: Results) -> str:
    """Every run: what it reached, and what is missing or damaged."""
    order = {column: number for number, column in enumerate(table.columns())}
    lines = []
    for file in sorted(results.files, key=lambda file: (order.get(file["column"], -1), file["rates"], file["seed"])):
        training = file["training"]
        rate = next((f"{v:.0f} {k.removesuffix('_per_second')}" for k, v in training.items() if "per_second" in k), "")
        accuracy, steps = f"{100 * training['accuracy']:.1f}", str(training["steps"])
        label = table.label(file["column"], file["rates"])
        lines.append([label, str(file["seed"]), accuracy, steps, f"{training['parameters']:,}", rate, file["run"]])
    heads = ["column", "seed", "accuracy % unpruned", "steps", "parameters", "a second", "run"]
    text = "## Runs\n\n" + tabulate(lines, heads, tablefmt="github", disable_numparse=True)
    gone = [
        f"- missing: {table.label(column, rates)}, seed {seed} ({state})"
        for column, rates, seed, state in results.missing
    ]
    gone += [
        f"- not scored in mode {mode_of(file, scoring)}: {table.label(file['column'], file['rates'])}, "
        f"seed {file['seed']}; remove its result file and type the command again, which scores the trained network"
        for file in results.files
        for scoring in table.scorings
        if mode_of(file, scoring) not in file.get("curves", {"dense": []})
    ]
    gone += [f"- damaged, left out: {reason}" for reason in results.damaged]
    return text + ("\n\n" + "\n".join(gone) if gone else "")


def findings(folder: Path) -> str:
    """What somebody has written on this table by hand."""
    path = folder / "findings.md"
    return f"## Findings\n\n{path.read_text().strip()}" if path.is_file() else ""
