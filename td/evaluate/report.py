"""Tables and pictures of prune curves, made from rows alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

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
"""The most curves that are columns of a table."""

COLUMNS = {
    "prune_rate": ("pruned %", 100, ".1f"),
    "sparsity": ("sparsity %", 100, ".2f"),
    "intrinsic_sparsity": ("intrinsic %", 100, ".2f"),
    "loss": ("loss", 1, ".3f"),
    "accuracy": ("accuracy %", 100, ".2f"),
    "recalibrated_loss": ("recalibrated loss", 1, ".3f"),
    "recalibrated_accuracy": ("recalibrated %", 100, ".2f"),
    "examples": ("examples", 1, ".0f"),
    "bleu": ("BLEU", 1, ".2f"),
}
"""Field of a row -> its column in a table: heading, factor, format."""

LEGEND = {
    "pruned": "pruned: requested",
    "sparsity": "sparsity: measured",
    "intrinsic": "intrinsic: sparsity before pruning, made by the method itself",
    "->": "3.3->8.3: as trained -> with BatchNorm recalibrated",
    " @": "98.2 @90: measured sparsity of 90 %",
}
"""What a table contains -> what it means."""


class Quantity(NamedTuple):
    """What a table or a panel shows, up to 100.

    Attributes:
      axis: Name on an axis.
      suffix: Addition to a title.
      of: `row -> value`.
      recalibrated: `row -> value` after BatchNorm was recalibrated, None where it was not.
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
    """List what there is to show: accuracy, and BLEU where all curves of a panel have it."""
    shown = []
    for title, curves in panels.items():
        translated = all(row.bleu is not None for rows in curves.values() for row in rows)
        shown += [(title, curves, quantity) for quantity in ((BLEU, TOKEN_ACCURACY) if translated else (ACCURACY,))]
    return shown


def table(rows: Sequence[Row]) -> str:
    """Format one curve, one line a rate.

    Example:
      >>> print(table([Row(0.5, 0.4982, 0.1, 0.987, 397)]))
        pruned %    sparsity %    loss    accuracy %    examples
      ----------  ------------  ------  ------------  ----------
            50.0         49.82   0.100         98.70         397
    """
    frame = pd.DataFrame(rows)[list(COLUMNS)].dropna(axis="columns")
    shown = {}
    for name, values in frame.items():
        heading, factor, spec = COLUMNS[name]
        shown[heading] = [format(factor * value, spec) for value in values]
    return _text(pd.DataFrame(shown), "simple", index=False)


def comparison(curves: Curves, style: str = "simple", quantity: Quantity = ACCURACY) -> str:
    """Format several curves side by side: accuracy, or another quantity, at every rate.

    A cell is the value as trained or, where BatchNorm was recalibrated, "as trained->recalibrated". More than six
    curves are rows instead of columns, each with its intrinsic sparsity; there "98.2 @90" adds a measured sparsity that
    is more than two points from the rate.

    Example:
      >>> print(comparison({"none": [Row(0.5, 0.49, 0.1, 0.48, 10, 0.1, 0.9)], "td": [Row(0.5, 0.5, 0, 0.99, 10)]}))
        pruned %    sparsity %        none    td
      ----------  ------------  ----------  ----
              50     49.0-50.0  48.0->90.0  99.0
    """
    across = len(curves) <= WIDEST
    cells = pd.DataFrame(
        (name, row.prune_rate, row.sparsity, _cell(row, quantity, measured=not across))
        for name, rows in curves.items()
        for row in rows
    )
    cells.columns = ["curve", "pruned %", "sparsity %", "cell"]
    if across:
        shown = cells.pivot(index="pruned %", columns="curve", values="cell")[list(curves)]
        ends = (100 * cells.groupby("pruned %")["sparsity %"].agg(["min", "max"])).map("{:.1f}".format)
        shown.insert(0, "sparsity %", ends.apply(lambda both: "-".join(dict.fromkeys(both)), axis=1))
        shown.index = shown.index.map(lambda rate: f"{100 * rate:g}")
        return _text(shown, style)
    shown = cells.pivot(index="curve", columns="pruned %", values="cell").loc[list(curves)]
    shown.columns = [f"{100 * rate:g} % pruned" for rate in shown.columns]
    intrinsic = (rows[0].intrinsic_sparsity for rows in curves.values())
    shown.insert(0, "intrinsic %", ["" if value is None else f"{100 * value:.1f}" for value in intrinsic])
    shown.index.name = ""
    return _text(shown, style, colalign=("left", *["right"] * shown.shape[1]))


def _cell(row: Row, quantity: Quantity, measured: bool) -> str:
    again = quantity.recalibrated(row)
    cell = f"{quantity.of(row):.1f}" + ("" if again is None else f"->{again:.1f}")
    return cell + (f" @{100 * row.sparsity:.0f}" if measured and abs(row.sparsity - row.prune_rate) > 0.02 else "")


def _text(frame: pd.DataFrame, style: str, **settings: Any) -> str:
    return str(frame.fillna("").to_markdown(tablefmt=style, disable_numparse=True, stralign="right", **settings))


def legend(tables: str) -> str:
    """Explain the words and signs that are in some tables."""
    return "; ".join(meaning for sign, meaning in LEGEND.items() if sign in tables)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a prune curve as CSV, accuracies from 0 to 1."""
    with replacing(path) as temporary:
        pd.DataFrame(rows, dtype=object).to_csv(temporary, index=False)


def plot(panels: Mapping[str, Curves], path: Path, against: Mapping[str, CostAxis] | None = None) -> None:
    """Draw prune curves, up to three panels a row, as PNG and PDF; `against` by panel, else the prune rate.

    Solid lines show the network as trained, dashed ones the same with BatchNorm recalibrated.
    """
    shown = quantities(panels)
    same = len({quantity.axis for _, _, quantity in shown}) == 1
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
                axis.set_ylabel(quantity.axis)
        for suffix, options in ((".png", {"dpi": 200, "metadata": {"Software": None}}), (".pdf", {})):
            with replacing(path.with_suffix(suffix)) as temporary:
                figure.savefig(temporary, **options)  # type: ignore[arg-type]
        plt.close(figure)


def _panel(axis: Axes, title: str, curves: Curves, quantity: Quantity, against: CostAxis = RATE) -> None:
    keys = {}  # what the legend adds to the curves
    for number, (name, rows) in enumerate(curves.items()):
        # 6 colours and 7 markers: the pair repeats after 42 curves.
        look: Any = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "ms": 4}
        xs = [against.of(row) or 0.0 for row in rows]
        axis.plot(xs, [quantity.of(row) for row in rows], label=name, **look)
        again: Any = [quantity.recalibrated(row) for row in rows]
        if None not in again:
            axis.plot(xs, again, ls="--", lw=1, mfc="white", **look)
            keys["BatchNorm recalibrated"] = ("--", 1.0)
        if (whole := against.uncompacted(rows[0])) is not None:
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
