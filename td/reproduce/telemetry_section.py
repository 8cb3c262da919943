"""The part of a report that explains: how the targets behaved in training, and what pruning empties."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from tabulate import tabulate

from td.evaluate.plots import SETTINGS
from td.reproduce.plots import column_style, save
from td.reproduce.results import Results
from td.reproduce.table import Table

TOLD = (
    "Targets are the lowest-ranked share of the weights: the method's own targets, else 75 %. How many of "
    "them are others a step later, at a tenth, at the half and at the end of the run; the median magnitude of a "
    "target and of the other weights at the end; the share of units without any weight, scored dense, at 50, 70 and "
    "90 % where the table has these rates; and the first prune rate at which a whole layer is empty. "
    "Of several seeds the picture has the first."
)

Json = dict[str, Any]


def telemetry(table: Table, results: Results, path: Path) -> list[str]:
    """Say how stable the targets were and what pruning emptied; draw it over training."""
    order = {column: number for number, column in enumerate(table.columns())}
    files = sorted(results.files, key=lambda file: (order.get(file["column"], -1), file["rates"], file["seed"]))
    watched = [file for file in files if file.get("telemetry")]
    if not watched:
        return []
    heads = ["column", "seed", "changed a step %", "target", "other", "dead units %", "empty layer from"]
    labels = [table.label(file["column"], file["rates"]) for file in watched]
    lines = [[label, *_line(file)] for label, file in zip(labels, watched, strict=True)]
    text = tabulate(lines, heads, tablefmt="github", disable_numparse=True)
    name = f"{path.stem}-telemetry"
    title = f"{table.title}, scale {results.scale}"
    _draw(
        title,
        {label: file["telemetry"] for label, file in reversed(list(zip(labels, watched, strict=True)))},
        list(dict.fromkeys(table.label(network.column, network.rates) for network in table.networks)),
        path.with_name(f"{name}.md"),
    )
    return [f"## Telemetry\n\n{TOLD}\n\n{text}", f"![Targets over training]({name}.png)"]


def _line(file: Json) -> list[str]:
    lines = file["telemetry"]
    end = lines[-1]["step"]
    moments = [next(line for line in lines if line["step"] >= share * end) for share in (0.1, 0.5, 1.0)]
    changed = " / ".join(f"{100 * line['targets/changed']:.2f}" for line in moments)
    sizes = [f"{lines[-1].get(f'targets/{side}_50', math.nan):.4f}" for side in ("inside", "outside")]
    rows = file["curves"]["dense"]
    dead = " / ".join(f"{100 * row['dead_units']:.1f}" for row in rows if row["prune_rate"] in (0.5, 0.7, 0.9))
    empty = next((f"{100 * row['prune_rate']:g} %" for row in rows if row["empty_layers"]), "none")
    return [str(file["seed"]), changed, *sizes, dead, empty]


def _draw(title: str, lines_of: dict[str, list[Json]], columns: Sequence[str], path: Path) -> None:
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.9), layout="constrained")
        for number, column in enumerate(columns):
            if column in lines_of:
                _panels(axes[0], axes[1], column, lines_of[column], {**column_style(number), "ms": 3})
        axes[0].set_ylabel("targets that change in a step (%)")
        axes[0].set_yscale("symlog", linthresh=0.01)
        axes[1].set_ylabel("median magnitude, target over other")
        for axis in axes:
            axis.set_xlabel("step")
            axis.grid(alpha=0.25, lw=0.5)
        axes[1].set_ylim(0, None)
        figure.suptitle(title)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False, fontsize=8)
        save(figure, path)


def _panels(left: Axes, right: Axes, column: str, lines: list[Json], style: dict[str, Any]) -> None:
    steps = [line["step"] for line in lines]
    left.plot(steps, [100 * line["targets/changed"] for line in lines], label=column, lw=1, **style)
    right.plot(steps, [_ratio(line) for line in lines], lw=1, **style)


def _ratio(line: Json) -> float:
    """Median magnitude of the targets over that of the others; nothing where more than the targets is zero.

    >>> _ratio({"targets/inside_50": 1.0, "targets/outside_50": 4.0}), _ratio({"targets/outside_50": 0.0})
    (0.25, nan)
    """
    inside, outside = (line.get(f"targets/{side}_50", math.nan) for side in ("inside", "outside"))
    return inside / outside if outside else math.nan
