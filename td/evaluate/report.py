"""Tables and pictures of prune curves, made from rows alone."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter
from tabulate import tabulate

from td.evaluate.cost_axes import RATE, CostAxis, Curves
from td.evaluate.prune_curve import Row
from td.io.files import replacing
from td.masks import find

# Dark to light, each with its own marker: legible in greyscale and to the colour-blind.
COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
MARKERS = "os^DvPX"

SETTINGS: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}
"""Matplotlib's, for every picture."""

WIDEST = 6
"""Curves that stand side by side in a table."""


class Quantity(NamedTuple):
    """What a table or a panel shows, of 100.

    Attributes:
      axis: its name on an axis.
      suffix: what it adds to a title.
      of: row -> the value.
      recalibrated: row -> the value after BatchNorm was recalibrated; None where it was not.
    """

    axis: str
    suffix: str
    of: Callable[[Row], float]
    recalibrated: Callable[[Row], float | None] = lambda _: None


ACCURACY = Quantity(
    "accuracy (%)",
    "",
    lambda row: 100 * row.accuracy,
    lambda row: None if row.recalibrated_accuracy is None else 100 * row.recalibrated_accuracy,
)
TOKEN_ACCURACY = ACCURACY._replace(axis="token accuracy (%)", suffix=", token accuracy")
BLEU = Quantity("BLEU, uncased", ", BLEU", lambda row: row.bleu or 0.0)

SHARES = ("drop_rate", "target_proportion", "proportion")


def label(mask: Mapping[str, Any]) -> str:
    """Name a method in words, with the paper's alpha/gamma.

    Example:
      >>> label({"name": "targeted", "granularity": "unit", "drop_rate": 0.5, "target_proportion": 0.75})
      'targeted unit .5/.75'
      >>> label({"name": "l0", "granularity": "weight", "cost": 0.1, "examples": 50_000})
      'l0 weight cost 0.1'
      >>> label({"name": "none"})
      'no dropout'
    """
    if title := find(mask["name"]).title:
        return title
    shares = "/".join(f"{mask[name]:g}".removeprefix("0") or "0" for name in SHARES if name in mask)
    others = [f"{name} {mask[name]:g}" for name in ("cost", "survivors", "rounds", "rate") if name in mask]
    words = [mask["name"].replace("_", " "), mask.get("granularity", ""), mask.get("reduction", ""), shares, *others]
    return " ".join(filter(None, words))


def quantities(panels: Mapping[str, Curves]) -> list[tuple[str, Curves, Quantity]]:
    """What there is to show: accuracy, and BLEU where all curves of a panel have it."""
    shown = []
    for title, curves in panels.items():
        translated = all(row.bleu is not None for rows in curves.values() for row in rows)
        shown += [(title, curves, quantity) for quantity in ((BLEU, TOKEN_ACCURACY) if translated else (ACCURACY,))]
    return shown


def table(rows: Sequence[Row]) -> str:
    """One line a rate, for the screen.

    Example:
      >>> print(table([Row(0.5, 0.4982, 0.1, 0.987, 397)]))
        prune rate %    sparsity %    loss    accuracy %    examples
      --------------  ------------  ------  ------------  ----------
                50.0         49.82   0.100         98.70         397
    """
    columns = ["prune rate %", "sparsity %", "loss", "accuracy %", "examples"]
    intrinsic = rows[0].intrinsic_sparsity is not None
    recalibrated = rows[0].recalibrated_accuracy is not None
    translated = rows[0].bleu is not None
    lines = []
    for row in rows:
        cells: list[Any] = [100 * row.prune_rate, 100 * row.sparsity, row.loss, 100 * row.accuracy, row.examples]
        if translated:
            cells.append(row.bleu)
        if recalibrated:
            cells[4:4] = [row.recalibrated_loss, 100 * (row.recalibrated_accuracy or 0.0)]
        if intrinsic:
            cells[2:2] = [100 * (row.intrinsic_sparsity or 0.0)]
        lines.append(cells)
    formats = [".1f", ".2f", ".3f", ".2f", "d"]
    if translated:
        columns.append("BLEU")
        formats.append(".2f")
    if recalibrated:
        columns[4:4] = ["loss, recalibrated", "accuracy %, recalibrated"]
        formats[4:4] = [".3f", ".2f"]
    if intrinsic:
        columns[2:2] = ["intrinsic %"]
        formats[2:2] = [".2f"]
    return tabulate(lines, headers=columns, floatfmt=formats)


def comparison(curves: Curves, style: str = "simple", quantity: Quantity = ACCURACY) -> str:
    """Accuracies, or another quantity, of several curves side by side, with the sparsity that was measured.

    More than six curves stand in rows instead of columns, with the intrinsic sparsity of each; there a cell has the
    measured sparsity, too, where it is more than two points from the rate, as "98.2 @90".
    A cell is the accuracy as trained or, where BatchNorm was recalibrated, "as trained->recalibrated".

    Example:
      >>> print(comparison({"none": [Row(0.5, 0.49, 0.1, 0.48, 10, 0.1, 0.9)], "td": [Row(0.5, 0.5, 0, 0.99, 10)]}))
        pruned %    measured %        none    td
      ----------  ------------  ----------  ----
              50     49.0-50.0  48.0->90.0  99.0
    """

    def cell(row: Row | None) -> str:
        if row is None:
            return ""
        again = quantity.recalibrated(row)
        return f"{quantity.of(row):.1f}" + ("" if again is None else f"->{again:.1f}")

    if len(curves) > WIDEST:
        return _in_rows(curves, cell, style)
    lines = []
    for rate, *rows in zip(*by_rate(curves), strict=True):
        measured = sorted({f"{100 * row.sparsity:.1f}" for row in rows if row is not None}, key=float)
        lines.append([f"{100 * rate:g}", "-".join(measured[:1] + measured[1:][-1:]), *map(cell, rows)])
    headers = ["pruned %", "measured %", *curves]
    return tabulate(lines, headers=headers, tablefmt=style, disable_numparse=True, stralign="right")


def by_rate(curves: Curves) -> list[list[Any]]:
    """All rates in order, then for every curve its row at each, None where it has none."""
    rates = sorted({row.prune_rate for rows in curves.values() for row in rows})
    found = ({row.prune_rate: row for row in rows} for rows in curves.values())
    return [rates, *([rows.get(rate) for rate in rates] for rows in found)]


def _in_rows(curves: Curves, cell: Callable[[Row | None], str], style: str) -> str:
    def measured(row: Row | None) -> str:
        return f" @{100 * row.sparsity:.0f}" if row and abs(row.sparsity - row.prune_rate) > 0.02 else ""

    def intrinsic(row: Row) -> str:
        return "" if row.intrinsic_sparsity is None else f"{100 * row.intrinsic_sparsity:.1f}"

    rates, *aligned = by_rate(curves)
    lines = [
        [name, intrinsic(rows[0]), *(cell(row) + measured(row) for row in found)]
        for (name, rows), found in zip(curves.items(), aligned, strict=True)
    ]
    headers = ["", "intrinsic %", *(f"{100 * rate:g} % pruned" for rate in rates)]
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(lines, headers, tablefmt=style, disable_numparse=True, colalign=align)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a prune curve as CSV, shares as shares."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)


def plot(panels: Mapping[str, Curves], path: Path, against: Mapping[str, CostAxis] | None = None) -> None:
    """Draw prune curves, up to three panels a row, as PNG and PDF; `against` by panel, else the prune rate.

    Solid lines are the network as trained; dashed ones the same with BatchNorm statistics estimated anew.
    """
    shown = quantities(panels)
    same = len({quantity.axis for _, _, quantity in shown}) == 1
    with plt.rc_context(SETTINGS):
        columns = len(shown) if len(shown) <= 3 else 2
        size = (4.3 * columns, 3.8 * -(-len(shown) // columns))
        figure = plt.figure(figsize=size, layout="constrained")
        axes = figure.subplots(-(-len(shown) // columns), columns, sharey=same, squeeze=False)
        for axis in axes.flat[len(shown) :]:
            axis.remove()
        for axis, (title, curves, quantity) in zip(axes.flat, shown, strict=False):
            _panel(axis, title, curves, quantity, (against or {}).get(title, RATE))
            if not same or axis in axes[:, 0]:
                axis.set_ylabel(quantity.axis)
        for suffix, options in ((".png", {"dpi": 200, "metadata": {"Software": None}}), (".pdf", {})):
            with replacing(path.with_suffix(suffix)) as temporary:
                figure.savefig(temporary, **options)  # type: ignore[arg-type]
        plt.close(figure)


def _panel(axis: Axes, title: str, curves: Curves, quantity: Quantity, against: CostAxis = RATE) -> None:
    farthest = max(100 * row.prune_rate for rows in curves.values() for row in rows)
    for number, (name, rows) in enumerate(curves.items()):
        # 6 colours and 7 markers: the pair repeats after 42 curves.
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        places = [against.of(row) or 0.0 for row in rows]
        axis.plot(places, [quantity.of(row) for row in rows], color=colour, marker=marker, ms=4, label=name)
        again = [quantity.recalibrated(row) for row in rows]
        if None not in again:
            axis.plot(
                places,
                [height or 0.0 for height in again],
                color=colour,
                ls="--",
                lw=1,
                marker=marker,
                ms=4,
                mfc="white",
            )
        if (whole := against.uncompacted(rows[0])) is not None:
            axis.axvline(whole, color=colour, ls=":", lw=1.2)
    if any(against.uncompacted(rows[0]) is not None for rows in curves.values()):
        axis.plot([], [], color="#777777", ls=":", lw=1.2, label="not compacted")
    if any(quantity.recalibrated(row) is not None for rows in curves.values() for row in rows):
        axis.plot([], [], color="#777777", ls="--", lw=1, label="BatchNorm recalibrated")
    axis.set_title(title)
    axis.set_xlabel(against.label)
    axis.set_ylim(0, 102 if quantity is not BLEU else None)
    axis.grid(alpha=0.25, lw=0.5)
    if against is RATE:
        axis.set_xticks(range(0, 101, 10) if farthest > 90 else range(0, 91, 10))
    else:
        axis.set_xlim(left=0)  # twice as far is twice as dear
    if against.large:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
