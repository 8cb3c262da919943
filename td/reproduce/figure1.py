"""The report of Table 1 and Figure 1: the change of loss, predicted and actual, and the matrices behind it."""

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from tabulate import tabulate

from td.errors import UserError
from td.evaluate.plots import SETTINGS
from td.io.files import load_arrays, replacing, write_text
from td.reproduce.plots import save
from td.reproduce.published import published
from td.reproduce.results import Mean, Results, mean
from td.reproduce.table import Table

LOG = logging.getLogger(__name__)

QUANTITIES: dict[str, tuple[str, Callable[[dict[str, Any]], float], str]] = {
    "change": ("predicted change of loss, abs(-g.d + d.H.d/2)", lambda f: f["predicted"], ".4f"),
    "first": ("first order, -g.d", lambda f: f["first_order"], ".4f"),
    "second": ("second order, d.H.d/2", lambda f: f["second_order"], ".4f"),
    "actual": ("actual change of loss", lambda f: f["actual"], ".4f"),
    "before": ("accuracy % before pruning", lambda f: 100 * f["accuracy_before"], ".2f"),
    "after": ("accuracy % after pruning", lambda f: 100 * f["accuracy_after"], ".2f"),
}
"""Name in the published file -> what it is, its value, its format."""

LONG = ("scale", "quantity", "column", "mean", "deviation", "n", "published")
"""The columns of the CSV file."""

TABLE_TOLD = (
    "Ours, mean ± standard deviation over seeds (published). The loss is the mean cross entropy of all test images; "
    "75 % of all weights are removed, the smallest of each unit."
)

FIGURE_TOLD = (
    "Figure 1: theta_i H_ij theta_j on all test images, weights ordered by magnitude, the largest first; one colour "
    "scale for both networks. Above, summed over 100 groups of equal size; the dotted lines part the first 25 % from "
    "the 75 % to be pruned. Below, the 200 largest weights one by one."
)


def sections(table: Table, results: Results, folder: Path, path: Path) -> list[str]:
    """Everything in the report that only Table 1 has; writes .csv, .tex and the picture."""
    found = {column: _of(results, column) for column in table.columns()}
    theirs = published(table.published["accuracy"])
    lines, plain, long = [], [], []
    for name, (what, value, form) in QUANTITIES.items():
        means = {column: mean([value(file["change_of_loss"]) for file in files]) for column, files in found.items()}
        paper = {c: value.mean for c in found for value in theirs.get(f"{c} {name}", {}).values()}
        lines.append([what, *(_cell(means[c], paper.get(c), form) for c in found)])
        plain.append([what, *(_cell(means[c], None, form) for c in found)])
        long += [[results.scale, what, c, *(means[c] or ("", "", 0)), paper.get(c, "")] for c in found]
    heads = [f"scale {results.scale}", *(f"{column} (n={len(files)})" for column, files in found.items())]
    with replacing(path.with_suffix(".csv")) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([[*LONG], *long])
    latex = tabulate(plain, heads, tablefmt="latex_booktabs", disable_numparse=True)
    write_text(path.with_suffix(".tex"), f"{latex}\n")
    drawn = {column: shown for column, files in found.items() if (shown := _with_matrices(files, folder))}
    text = f"{TABLE_TOLD}\n\n"
    parts = [text + tabulate(lines, heads, tablefmt="github", disable_numparse=True)]
    if drawn:
        draw({f"{column}, seed {seed}": matrices for column, (seed, matrices) in drawn.items()}, results.scale, path)
        parts.append(f"![Figure 1]({path.stem}.png)\n\n{FIGURE_TOLD}")
    return parts


def _with_matrices(files: Sequence[dict[str, Any]], folder: Path) -> tuple[int, Mapping[str, np.ndarray]] | None:
    """The first seed whose matrices are there whole, and they."""
    for file in files:
        path = folder / f"{file['run']}.npz"
        if path.exists():
            try:
                return file["seed"], load_arrays(
                    path, f"{path} is damaged", "left out of the figure; delete its result file to have it made anew"
                )
            except UserError as error:
                LOG.warning("%s", error)
    return None


def _of(results: Results, column: str) -> list[dict[str, Any]]:
    return [file for file in results.files if file["column"] == column]


def _cell(ours: Mean | None, theirs: float | None, form: str) -> str:
    paper = "" if theirs is None else f" ({theirs:{form}})"
    if ours is None:
        return f"missing{paper}"
    return f"{ours.mean:{form}}" + ("" if ours.deviation is None else f" ± {ours.deviation:{form}}") + paper


def draw(networks: Mapping[str, Mapping[str, np.ndarray]], scale: str, path: Path) -> None:
    """Draw the matrices of several networks side by side."""
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(
            2, len(networks), figsize=(3.9 * len(networks) + 0.8, 7.4), squeeze=False, layout="constrained"
        )
        for line, kind in zip(axes, ("groups", "largest"), strict=True):
            matrices = [matrix[kind] for matrix in networks.values()]
            top = max(float(np.abs(matrix).max()) for matrix in matrices) or 1.0
            # A power of ten, so that the labels of the colour bar stand apart.
            norm = SymLogNorm(linthresh=10.0 ** (np.floor(np.log10(top)) - 3), vmin=-top, vmax=top)
            for axis, name, matrix in zip(line, networks, matrices, strict=True):
                image = axis.imshow(matrix, cmap="RdBu_r", norm=norm, interpolation="nearest")
                _label(axis, kind, name, len(matrix))
            label = "sum over two groups" if kind == "groups" else "two weights"
            figure.colorbar(image, ax=list(line), shrink=0.85, label=label)
        figure.suptitle(f"Figure 1, scale {scale}")
        save(figure, path)


def _label(axis: Axes, kind: str, name: str, size: int) -> None:
    axis.set_title(name)
    if kind == "groups":
        axis.axhline(size / 4 - 0.5, color="black", lw=0.8, ls=":")
        axis.axvline(size / 4 - 0.5, color="black", lw=0.8, ls=":")
        ticks: Sequence[int] = (0, 25, 50, 75, 100)
        axis.set_xticks([tick * size / 100 - 0.5 for tick in ticks], [str(tick) for tick in ticks])
        axis.set_yticks([tick * size / 100 - 0.5 for tick in ticks], [str(tick) for tick in ticks])
        axis.set_xlabel("weights, largest first (%)")
        axis.set_ylabel("weights, largest first (%)")
    else:
        axis.set_xlabel("weights, largest first (rank)")
        axis.set_ylabel("weights, largest first (rank)")
