"""A table's cells for other programs: LaTeX and CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from td.io.files import replacing
from td.reproduce.results import Mean
from td.reproduce.table import Table
from td.reproduce.views import Grid, View

NUMBERS = ("sparsity", "n", "mean", "deviation", "published", "difference", "dead_units", "empty_layers")
"""What the CSV file has on every cell."""


def latex(table: Table, found: Sequence[Grid]) -> str:
    """All views as LaTeX tables, with booktabs; means and deviations only."""
    parts = []
    for grid in found:
        lines = []
        for rate in grid.rates:
            cells = (grid.ours.get((column, rate)) for column in grid.columns)
            shown = ["" if c is None else f"${c.mean:.1f}{_deviation(c)}$" for c in cells]
            lines.append([f"{100 * rate:g}", *shown])
        heads = ["pruned \\%", *(column.replace("_", "\\_") for column in grid.columns)]
        body = tabulate(lines, heads, tablefmt="latex_raw", disable_numparse=True, stralign="right")
        body = body.replace("\\hline", "\\toprule", 1).replace("\\hline", "\\midrule", 1)
        body = body.replace("\\hline", "\\bottomrule", 1)
        parts.append(f"% {table.title}: {grid.view.title}, scale {grid.scale}\n{body}")
    return "\n\n".join(parts) + "\n"


def _deviation(cell: Mean) -> str:
    return "" if cell.deviation is None else f" \\pm {cell.deviation:.1f}"


def write_csv(path: Path, found: Sequence[Grid]) -> None:
    """Write every cell of every view on a line of its own."""
    heads = ("scale", *View._fields, "column", "mode", "prune_rate", *NUMBERS)
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        for grid in found:
            for (column, rate), ours in grid.ours.items():
                theirs = grid.published.get((column, rate))
                difference = "" if theirs is None else f"{ours.mean - theirs.mean:.4f}"
                deviation = "" if ours.deviation is None else f"{ours.deviation:.4f}"
                sparsity = f"{grid.sparsity[column, rate] / 100:.6f}"
                paper = "" if theirs is None else theirs.mean
                emptied = [f"{grid.dead_units[column, rate] / 100:.6f}", f"{grid.empty_layers[column, rate]:g}"]
                numbers = [sparsity, ours.n, f"{ours.mean:.4f}", deviation, paper, difference, *emptied]
                writer.writerow([grid.scale, *grid.view, column, grid.modes[column], rate, *numbers])
