"""The ways in which a table is looked at: a scoring, a quantity, as trained or with BatchNorm recalibrated."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from td.evaluate.prune_curve import Row
from td.reproduce.claims import Cell
from td.reproduce.published import Columns, Value, published
from td.reproduce.results import Mean, Results, mean
from td.reproduce.table import Table, paper_mode

MODE_MEANS = {
    "dense": "the whole trained network, then pruned",
    "prune_targets": "the method's targets removed first, then pruned",
    "stochastic": "pruned, dropout still active",
}

TITLES = {"dense": "dense", "paper": "the paper's modes"}
"""Of scorings, for the reader."""

UNITS = {"accuracy": "accuracy in per cent", "bleu": "BLEU, uncased"}


class View(NamedTuple):
    """One way to look at a table."""

    scoring: str  # one of `td.reproduce.table.SCORINGS`
    quantity: str  # "accuracy" or "bleu"
    recalibrated: bool  # whether BatchNorm statistics were estimated anew after pruning

    @property
    def title(self) -> str:
        """Scoring, quantity where it is not the usual one, and state of BatchNorm, in words."""
        state = "BatchNorm recalibrated" if self.recalibrated else "as trained"
        return ", ".join([TITLES[self.scoring], *([self.quantity] if self.quantity != "accuracy" else []), state])

    def of(self, row: Row) -> float | None:
        """The value that a row has in this view, of 100."""
        if self.quantity == "bleu":
            return None if self.recalibrated else row.bleu
        share = row.recalibrated_accuracy if self.recalibrated else row.accuracy
        return None if share is None else 100 * share


class Grid(NamedTuple):
    """A table in one view."""

    view: View  # the view
    columns: tuple[str, ...]  # heads
    modes: dict[str, str]  # column -> the mode that it is scored in
    rates: tuple[float, ...]  # prune rates, one a line
    ours: dict[Cell, Mean]  # cell -> mean over seeds
    seeds: dict[Cell, tuple[float, ...]]  # cell -> the value of every seed, in the order of the plan
    sparsity: dict[Cell, float]  # cell -> measured sparsity in per cent, the mean over seeds
    dead_units: dict[Cell, float]  # cell -> units without any weight, in per cent, the mean over seeds
    empty_layers: dict[Cell, float]  # cell -> kernels without any weight, the mean over seeds
    published: dict[Cell, Value]  # cell -> the paper's value
    scale: str  # at which it was run


def views(table: Table) -> list[View]:
    """All views of a table."""
    kinds = [(scoring, quantity) for scoring in table.scorings for quantity in table.published]
    return [View(scoring, quantity, again) for scoring, quantity in kinds for again in (False, True)]


def grids(table: Table, results: Results) -> list[Grid]:
    """A table's cells in every view that has any."""
    rates = sorted({rate for network in table.networks for rate in network.rates})
    cells = [(network.column, rate) for network in table.networks for rate in network.rates]
    found = []
    for view in views(table):
        rows = {cell: results.rows(view.scoring, cell) for cell in cells}
        values = {cell: _values(view, points) for cell, points in rows.items()}
        seeds = {cell: tuple(each) for cell, each in values.items() if each}
        kept = {cell: value for cell, each in seeds.items() if (value := mean(each)) is not None}
        theirs = in_cells(published(table.published[view.quantity]))
        sparsity = {cell: fmean(100 * row.sparsity for row in rows[cell]) for cell in kept}
        dead = {cell: fmean(100 * (row.dead_units or 0.0) for row in rows[cell]) for cell in kept}
        empty = {cell: fmean(row.empty_layers or 0 for row in rows[cell]) for cell in kept}
        if kept:
            columns, modes = tuple(table.columns()), column_modes(table, view.scoring)
            found.append(
                Grid(view, columns, modes, tuple(rates), kept, seeds, sparsity, dead, empty, theirs, results.scale)
            )
    return found


def column_modes(table: Table, scoring: str) -> dict[str, str]:
    """The mode of every column."""
    if scoring == "dense":
        return dict.fromkeys(table.columns(), "dense")
    return {n.column: paper_mode(n.settings["mask"], table.granularity) for n in table.networks}


def sentence(grid: Grid) -> str:
    """What a view shows, and how it was scored."""
    again = ", with BatchNorm statistics estimated anew after pruning" if grid.view.recalibrated else ""
    units = UNITS[grid.view.quantity]
    units = f"{units[0].upper()}{units[1:]}"
    if grid.view.scoring == "dense":
        return f"{units}: {MODE_MEANS['dense']}{again}."
    columns: dict[str, list[str]] = {}
    for column in grid.columns:
        columns.setdefault(grid.modes[column], []).append(column)
    listed = [f"In mode `{mode}` ({MODE_MEANS[mode]}): {', '.join(names)}." for mode, names in columns.items()]
    return " ".join([f"{units}: each column scored as the released code did{again}.", *listed])


def _values(view: View, rows: Sequence[Row]) -> list[float]:
    return [value for value in map(view.of, rows) if value is not None]


def in_cells(columns: Columns) -> dict[Cell, Value]:
    """Published numbers by cell."""
    return {
        (column, round(percent / 100, 6)): value
        for column, values in columns.items()
        for percent, value in values.items()
    }
