"""Pictures of prune curves, made from rows alone."""

from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image

from td.evaluate.curve_tables import ACCURACY, BLEU, RATE, REPAIRED, Axis, Curves, quantities
from td.io.files import Path, replacing

# Dark to light, each with its own marker: legible in greyscale and to the colour-blind.
COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
MARKERS = "os^DvPX"
DPI = 160

SETTINGS: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}
"""Matplotlib's, for every picture."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and PDF, and close it."""
    # Neither date nor version: the same results give the same bytes.
    for suffix, unwanted in ((".png", "Software"), (".pdf", "CreationDate")):
        with replacing(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={unwanted: None})
            if suffix == ".png":
                shrink(temporary)
    plt.close(figure)


def shrink(path: Path) -> None:
    """Give a PNG file a palette of 64 colours, which looks the same in print and has a quarter of the bytes."""
    few = Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    few.save(path, dpi=(DPI, DPI))


def plot(panels: Mapping[str, Curves], path: Path, against: Mapping[str, Axis] | None = None) -> None:
    """Draw prune curves, up to three panels a row, as PNG and PDF; `against` by panel, else the prune rate."""
    shown = [(title, curves, quantity) for title, curves in panels.items() for quantity in quantities(curves)]
    same = len({quantity.label for _, _, quantity in shown}) == 1
    columns = len(shown) if len(shown) <= 3 else 2
    lines = -(-len(shown) // columns)
    with plt.rc_context(SETTINGS):
        figure = plt.figure(figsize=(4.3 * columns, 3.8 * lines), layout="constrained")
        axes = figure.subplots(lines, columns, sharey=same, squeeze=False)
        for axis in axes.flat[len(shown) :]:
            axis.remove()
        for axis, (title, curves, quantity) in zip(axes.flat, shown, strict=False):
            _panel(axis, title, curves, quantity, (against or {}).get(title, RATE))
            if not same or axis in axes[:, 0]:
                axis.set_ylabel(quantity.label)
        save(figure, path)


def _panel(axis: Axes, title: str, curves: Curves, quantity: Axis, against: Axis = RATE) -> None:
    keys = {}  # what the legend adds to the curves
    for number, (name, rows) in enumerate(curves.items()):
        # 6 colours and 7 markers: the pair repeats after 42 curves.
        look: Any = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "ms": 4}
        xs = [against.of(row) for row in rows]
        axis.plot(xs, [quantity.of(row) for row in rows], label=name, **look)
        again: Any = [quantity.other_of(row) for row in rows]
        if None not in again:
            axis.plot(xs, again, ls="--", lw=1, mfc="white", **look)
            keys["BatchNorm recalibrated"] = ("--", 1.0)
        if quantity == ACCURACY and all(row.reconstructed_accuracy is not None for row in rows):
            axis.plot(xs, [REPAIRED.of(row) for row in rows], ls="-.", lw=1, mfc="white", **look)
            keys["reconstructed"] = ("-.", 1.0)
        if (whole := against.other_of(rows[0])) is not None:
            axis.axvline(whole, color=look["color"], ls=":", lw=1.2)
            keys["not compacted"] = (":", 1.2)
    for name, (style, width) in sorted(keys.items(), reverse=True):
        axis.plot([], [], color="#777777", ls=style, lw=width, label=name)
    axis.set_title(title)
    axis.set_xlabel(against.label)
    axis.set_ylim(0, 102 if quantity is not BLEU else None)
    axis.grid(alpha=0.25, lw=0.5)
    if against is RATE:
        farthest = max(row.prune_rate for rows in curves.values() for row in rows)
        axis.set_xticks(range(0, 101, 10) if farthest > 0.9 else range(0, 91, 10))
    else:
        axis.set_xlim(left=0)  # twice as far costs twice as much
    if against.large:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
