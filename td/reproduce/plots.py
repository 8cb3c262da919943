"""Pictures of a table: the paper's and ours as heat maps, and the prune curves with bands over seeds."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from td.evaluate.plots import COLOURS, MARKERS, SETTINGS
from td.io.files import replacing
from td.reproduce.claims import Cell
from td.reproduce.views import UNITS, Grid

COLOUR_MAP = "cividis"
"""Its lightness rises evenly: legible in greyscale and to the colour-blind."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and PDF, and close it."""
    # Neither date nor version: the same results give the same bytes.
    for suffix, unwanted in ((".png", "Software"), (".pdf", "CreationDate")):
        with replacing(path.with_name(f"{path.stem}{suffix}")) as temporary:
            figure.savefig(temporary, dpi=160, metadata={unwanted: None})
    plt.close(figure)


def heat_maps(title: str, found: Sequence[Grid], path: Path) -> None:
    """Draw a table's views beside the published values, all in one colour scale."""
    rows: dict[tuple[str, str], list[Grid]] = {}
    for grid in found:
        rows.setdefault((grid.view.scoring, grid.view.quantity), []).append(grid)
    across, several = 1 + max(map(len, rows.values())), len({grid.view.quantity for grid in found}) > 1
    wide, high = len(found[0].columns), len(found[0].rates)
    size = (across * max(1.1 + 0.52 * wide, 3.2), len(rows) * (1.6 + 0.24 * high) + 0.6)
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(len(rows), across, figsize=size, squeeze=False, layout="constrained")
        for line, group in zip(axes, rows.values(), strict=True):
            tops = [max((value.mean for value in grid.ours.values()), default=0.0) for grid in group]
            theirs = {cell: value.mean for cell, value in group[0].published.items()}
            top = max([*tops, *theirs.values()])
            unit = f"\n{UNITS[group[0].view.quantity]}" if several else ""
            _heat_map(line[0], f"published{unit}", group[0], theirs, top)
            for axis, grid in zip(line[1:], group, strict=False):
                shown = {cell: value.mean for cell, value in grid.ours.items()}
                _heat_map(axis, f"ours: {grid.view.title}{unit}", grid, shown, top)
            for axis in line[1 + len(group) :]:
                axis.set_axis_off()
        heading = f"{title}{'' if several else f': {UNITS[found[0].view.quantity]}'}, scale {found[0].scale}"
        figure.suptitle(textwrap.fill(heading, int(11 * size[0])))
        save(figure, path)


def _heat_map(axis: Axes, title: str, grid: Grid, values: Mapping[Cell, float], top: float) -> None:
    numbers = np.array([[values.get((column, rate), np.nan) for column in grid.columns] for rate in grid.rates])
    axis.imshow(numbers, cmap=COLOUR_MAP, vmin=0, vmax=top, aspect="auto")
    for (y, x), number in np.ndenumerate(numbers):
        if not np.isnan(number):
            dark = number < 0.55 * top
            axis.text(x, y, f"{number:.1f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axis.set_xticks(range(len(grid.columns)), grid.columns, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(grid.rates)), [f"{100 * rate:g}" for rate in grid.rates], fontsize=8)
    axis.set_ylabel("pruned (%)")
    axis.set_title(title, fontsize=9)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)


def curves(title: str, found: Sequence[Grid], path: Path) -> None:
    """Draw prune curves, one panel a view, with a band of one standard deviation where there are several seeds."""
    across = min(2, len(found))
    down = -(-len(found) // across)
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(
            down, across, figsize=(4.6 * across, 3.1 * down + 0.9), squeeze=False, layout="constrained"
        )
        for axis, grid in zip(axes.flat, found, strict=False):
            _curves(axis, grid)
        for axis in axes.flat[len(found) :]:
            axis.set_axis_off()
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False, fontsize=8)
        figure.suptitle(textwrap.fill(f"{title}, scale {found[0].scale}", 50 * across))
        save(figure, path)


def column_style(number: int) -> dict[str, Any]:
    """Of a table's n-th column in every picture: dashed where the colours begin again."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    return {"color": colour, "marker": marker, "ls": "-" if number < len(COLOURS) else "--"}


def _curves(axis: Axes, grid: Grid) -> None:
    for number, column in enumerate(grid.columns):
        rates = [rate for rate in grid.rates if (column, rate) in grid.ours]
        if not rates:
            continue
        cells = [grid.ours[column, rate] for rate in rates]
        x, y = [100 * rate for rate in rates], np.array([cell.mean for cell in cells])
        spread = np.array([cell.deviation or 0.0 for cell in cells])
        style = column_style(number)
        axis.plot(x, y, ms=4, lw=1.2, label=column, **style)
        if spread.any():
            axis.fill_between(x, y - spread, y + spread, color=style["color"], alpha=0.2, lw=0)
    axis.set_title(grid.view.title, fontsize=9)
    axis.set_xlabel("removed after training (%)")
    axis.set_ylabel(UNITS[grid.view.quantity])
    axis.set_ylim(0, None)
    axis.grid(alpha=0.25, lw=0.5)
