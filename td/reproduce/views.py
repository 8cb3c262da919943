"""The ways in which a table is looked at: a mode, a quantity, as trained or with BatchNorm recalibrated."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from td.curve import Row
from td.reproduce.claims import Cell
from td.reproduce.published import Columns, Value, published
from td.reproduce.results import Mean, Results, mean
from td.reproduce.table import Table

MODE_MEANS = {
    "dense": "the whole trained network, then pruned",
    "prune_targets": "the method's targets removed first, then pruned, as the paper's weight columns were scored",
    "stochastic": "dropout still active, as the paper's unit columns most likely were scored",
}

UNITS = {"accuracy": "accuracy in per cent", "bleu": "BLEU, uncased"}


class View(NamedTuple):
    """One way to look at a table.

    Attributes:
      mode: one of `td.curve.MODES`.
      quantity: "accuracy" or "bleu".
      recalibrated: whether BatchNorm statistics were estimated anew after pruning.
    """

    mode: str
    quantity: str
    recalibrated: bool

    @property
    def title(self) -> str:
        """Mode, quantity where it is not the usual one, and state of BatchNorm, in words."""
        state = "BatchNorm recalibrated" if self.recalibrated else "as trained"
        return ", ".join([self.mode, *([self.quantity] if self.quantity != "accuracy" else []), state])

    def of(self, row: Row) -> float | None:
        """The value that a row has in this view, of 100.

        Args:
          row: of a prune curve.

        Returns:
          None where it was not measured.

        Example:
          >>> View("dense", "accuracy", False).of(Row(0.5, 0.5, 0.1, 0.25, 10))
          25.0
        """
        if self.quantity == "bleu":
            return None if self.recalibrated else row.bleu
        share = row.recalibrated_accuracy if self.recalibrated else row.accuracy
        return None if share is None else 100 * share


class Grid(NamedTuple):
    """A table in one view.

    Attributes:
      view: the view.
      columns: heads.
      rates: prune rates, one a line.
      ours: cell -> mean over seeds.
      sparsity: cell -> measured sparsity in per cent, the mean over seeds.
      dead_units: cell -> units without any weight, in per cent, the mean over seeds.
      empty_layers: cell -> kernels without any weight, the mean over seeds.
      published: cell -> the paper's value.
      scale: at which it was run.
    """

    view: View
    columns: tuple[str, ...]
    rates: tuple[float, ...]
    ours: dict[Cell, Mean]
    sparsity: dict[Cell, float]
    dead_units: dict[Cell, float]
    empty_layers: dict[Cell, float]
    published: dict[Cell, Value]
    scale: str


def views(table: Table) -> list[View]:
    """All views of a table.

    Args:
      table: the table.

    Returns:
      As trained, then recalibrated, for every quantity of every mode.
    """
    kinds = [(mode, quantity) for mode in table.modes for quantity in table.published]
    return [View(mode, quantity, again) for mode, quantity in kinds for again in (False, True)]


def grids(table: Table, results: Results) -> list[Grid]:
    """A table's cells in every view that has any.

    Args:
      table: the table.
      results: its results.

    Returns:
      One `Grid` a view.
    """
    rates = sorted({rate for network in table.networks for rate in network.rates})
    cells = [(network.column, rate) for network in table.networks for rate in network.rates]
    found = []
    for view in views(table):
        rows = {cell: results.rows(view.mode, cell) for cell in cells}
        ours = {cell: mean(_values(view, points)) for cell, points in rows.items()}
        kept = {cell: value for cell, value in ours.items() if value is not None}
        theirs = in_cells(published(table.published[view.quantity]))
        sparsity = {cell: fmean(100 * row.sparsity for row in rows[cell]) for cell in kept}
        dead = {cell: fmean(100 * (row.dead_units or 0.0) for row in rows[cell]) for cell in kept}
        empty = {cell: fmean(row.empty_layers or 0 for row in rows[cell]) for cell in kept}
        if kept:
            columns = tuple(table.columns())
            found.append(Grid(view, columns, tuple(rates), kept, sparsity, dead, empty, theirs, results.scale))
    return found


def _values(view: View, rows: Sequence[Row]) -> list[float]:
    return [value for value in map(view.of, rows) if value is not None]


def in_cells(columns: Columns) -> dict[Cell, Value]:
    """Published numbers by cell.

    Args:
      columns: as `published` gives them.

    Returns:
      Column and prune rate, a share -> value.

    Example:
      >>> in_cells({"none": {98.5: Value(10.0)}})
      {('none', 0.985): Value(mean=10.0, deviation=None)}
    """
    return {
        (column, round(percent / 100, 6)): value
        for column, values in columns.items()
        for percent, value in values.items()
    }
