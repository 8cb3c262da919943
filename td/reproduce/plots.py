"""Pictures of a table: published values and ours as heat maps, prune curves with bands, targets over training."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from td.evaluate.plots import COLOURS, MARKERS, SETTINGS, save
from td.reproduce.results import UNITS, View
from td.reproduce.table import Table


def heat_maps(title: str, found: Sequence[View], path: Path) -> None:
    """Draw the views of a table next to the published values, a scoring and quantity a line, in one colour scale."""
    lines: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    several = len({view.quantity for view in found}) > 1
    for view in found:
        unit = f"\n{UNITS[view.quantity]}" if several else ""
        published = view.grid("published").astype(float)
        first = {f"published{unit}": published} if published.notna().any(axis=None) else {}
        lines.setdefault((view.scoring, view.quantity), first)[f"ours: {view.title}{unit}"] = view.grid("mean")
    across, (high, wide) = max(map(len, lines.values())), found[0].grid("mean").shape
    size = (across * max(1.1 + 0.52 * wide, 3.2), len(lines) * (1.6 + 0.24 * high) + 0.6)
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(len(lines), across, figsize=size, squeeze=False, layout="constrained")
        for line, panels in zip(axes, lines.values(), strict=True):
            top = max(numbers.max(axis=None) for numbers in panels.values())
            for axis, (heading, numbers) in zip(line, panels.items(), strict=False):
                parts = [textwrap.fill(part, int(13 * size[0] / across)) for part in heading.splitlines()]
                _heat_map(axis, "\n".join(parts), numbers, top)
            for axis in line[len(panels) :]:
                axis.set_axis_off()
        heading = f"{title}{'' if several else f': {UNITS[found[0].quantity]}'}, scale {found[0].scale}"
        figure.suptitle(textwrap.fill(heading, int(11 * size[0])))
        save(figure, path)


def _heat_map(axis: Axes, title: str, numbers: pd.DataFrame, top: float) -> None:
    # The lightness of cividis rises evenly: legible in greyscale and to the colour-blind.
    axis.imshow(numbers, cmap="cividis", vmin=0, vmax=top, aspect="auto")
    for (y, x), number in np.ndenumerate(numbers.to_numpy()):
        if not np.isnan(number):
            dark = number < 0.55 * top
            axis.text(x, y, f"{number:.1f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axis.set_xticks(range(numbers.shape[1]), list(numbers), rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(numbers)), [f"{100 * rate:g}" for rate in numbers.index], fontsize=8)
    axis.set_ylabel("pruned (%)")
    axis.set_title(title, fontsize=9)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)


def curves(title: str, found: Sequence[View], path: Path) -> None:
    """Draw prune curves, one panel a view, with a band of one standard deviation where there are several seeds."""
    across, down = min(2, len(found)), -(-len(found) // 2)
    size = (4.6 * across, 3.1 * down + 0.9)
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
        for axis, view in zip(axes.flat, found, strict=False):
            _curves(axis, view)
        for axis in axes.flat[len(found) :]:
            axis.set_axis_off()
        _finish(figure, textwrap.fill(f"{title}, scale {found[0].scale}", 50 * across), path)


def column_style(number: int) -> dict[str, Any]:
    """Style a table's n-th column in every picture: dashed where the colours repeat."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    return {"color": colour, "marker": marker, "ls": "-" if number < len(COLOURS) else "--"}


def _finish(figure: Figure, title: str, path: Path) -> None:
    """Add title and legend, and save."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False, fontsize=8)
    figure.suptitle(title)
    save(figure, path)


def _curves(axis: Axes, view: View) -> None:
    for number, (column, means) in enumerate(view.grid("mean").items()):
        style, y = column_style(number), means.dropna()
        spread = view.cells["deviation"][column].fillna(0.0)[y.index]
        if y.empty:
            continue
        axis.plot(100 * y.index, y, ms=4, lw=1.2, label=column, **style)
        if spread.any():
            axis.fill_between(100 * y.index, y - spread, y + spread, color=style["color"], alpha=0.2, lw=0)
    axis.set_title(view.title, fontsize=9)
    axis.set(xlabel="pruned after training (%)", ylabel=UNITS[view.quantity], ylim=(0, None))
    axis.grid(alpha=0.25, lw=0.5)


def targets(table: Table, scale: str, files: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw how many targets change in a step, and how large they are, over training: the first seed of each network."""
    telemetry = {table.label(file): file["telemetry"] for file in reversed(files)}
    labels = list(dict.fromkeys(table.label(network._asdict()) for network in table.networks))
    with plt.rc_context(SETTINGS):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.9), layout="constrained")
        for number, label in enumerate(labels):
            lines, style = telemetry.get(label, []), {**column_style(number), "ms": 3, "lw": 1}
            steps = [line["step"] for line in lines]
            if lines:
                left.plot(steps, [100 * line["targets/changed"] for line in lines], label=label, **style)
                sizes = [[line.get(f"targets/{side}_50", math.nan) for line in lines] for side in ("inside", "outside")]
                right.plot(steps, [left / (right or math.nan) for left, right in zip(*sizes, strict=True)], **style)
        left.set(xlabel="step", ylabel="targets that change in a step (%)")
        left.set_yscale("symlog", linthresh=0.01)
        right.set(xlabel="step", ylabel="median magnitude, target over other", ylim=(0, None))
        for axis in (left, right):
            axis.grid(alpha=0.25, lw=0.5)
        _finish(figure, f"{table.title}, scale {scale}", path)
