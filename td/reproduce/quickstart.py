"""The main job in small: four networks on the embedded digits, pruned at 0 to 90 %, a table and a picture."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from td.evaluate.axes import COST_AXES
from td.evaluate.curve_tables import comparison, cost_table, label
from td.evaluate.options import Options
from td.evaluate.plots import plot
from td.evaluate.prune_curve import Row, prune_curves
from td.evaluate.rates import parse_rates
from td.io import provenance
from td.io.files import write_json
from td.train.experiment import load_trained
from td.train.loop import train

RATES = {"weight": "0:0.9:0.1", "unit": "0,0.1,0.3,0.5,0.7,0.9"}  # of units, each is a network to compile
SCORED = Options(batch_size=128, recalibrate_batch_norm=True, recalibration_batches=11)  # 11: one epoch
CALLS = 60  # of every compacted network
COSTS = ("prune_rate", *Row._fields[Row._fields.index("parameters") :])


NETWORKS = {
    "mask=none": ("weight", "unit"),
    "mask=targeted,granularity=weight": ("weight",),
    "mask=ramping,granularity=weight": ("weight",),
    "mask=targeted,granularity=unit": ("unit",),
}
"""Arguments of the config -> granularities at which the network is pruned."""

Curves = dict[str, list[Row]]


def run(get_config: Callable[[str], ConfigDict], folder: Path, started: float) -> str:
    """Train the four networks, or go on where a killed quickstart stopped, and compare their prune curves."""
    resumed = folder.exists()
    trained: dict[str, dict[str, Any]] = {"weight": {}, "unit": {}}
    for number, (argument, granularities) in enumerate(NETWORKS.items(), start=1):
        config = get_config(argument)
        name = label(config.mask.to_dict())
        print(f"[{number}/{len(NETWORKS)}] {name}", flush=True)
        workdir = folder / name.replace(" ", "_").replace("/", "-")
        train(config, workdir)
        for granularity in granularities:
            trained[granularity][name] = load_trained(workdir, finished=True)
    panels: dict[str, Curves] = {}
    for granularity, networks in trained.items():
        options = SCORED._replace(granularity=granularity)
        options = options._replace(compact=True, timing_repeats=CALLS) if granularity == "unit" else options
        curves = prune_curves(list(networks.values()), parse_rates(RATES[granularity]), options)
        panels[granularity] = dict(zip(networks, curves, strict=True))
    picture = folder / "quickstart.png"
    draw(panels, picture)
    rows = {kind: {name: [row._asdict() for row in c] for name, c in curves.items()} for kind, curves in panels.items()}
    seconds = time.perf_counter() - started
    timing = {} if resumed else {"seconds": round(seconds, 1)}
    found = {"curves": rows, "claims": claims(panels), "compacted": compacted(panels), "calls": CALLS}
    write_json(folder / "quickstart.json", {**found, **timing, **provenance.describe()})
    return f"{summary(panels)}\n\n{seconds:.0f} seconds; picture: {picture}"


def draw(panels: dict[str, Curves], picture: Path) -> None:
    """Accuracy by the share removed, and that of units by what the compacted network costs."""
    shown = {f"{name} pruning": curves for name, curves in panels.items()}
    costs = {
        f"units, compacted: {word}": COST_AXES[x] for word, x in {"size": "parameters", "time": "latency128"}.items()
    }
    plot({**shown, **dict.fromkeys(costs, panels["unit"])}, picture, costs)


def compacted(panels: dict[str, Curves]) -> dict[str, list[dict[str, float | None]]]:
    """What the targeted unit network costs, whole and without half its units."""
    name, rows = list(panels["unit"].items())[1]
    return {name: [{word: getattr(row, word) for word in COSTS} for row in rows if row.prune_rate in (0.0, 0.5)]}


def claims(panels: dict[str, Curves]) -> dict[str, dict[str, float]]:
    """The three comparisons of the quickstart, each with the plain network at the same rate."""
    plain, targeted, ramping = panels["weight"].values()
    plain_units, targeted_units = panels["unit"].values()
    return {
        "70 % of the weights removed, targeted dropout": margin(targeted, plain, 0.7),
        "90 % of the weights removed, ramping": margin(ramping, plain, 0.9),
        "50 % of the units removed, targeted unit dropout": margin(targeted_units, plain_units, 0.5),
    }


def margin(ours: Sequence[Row], plain: Sequence[Row], rate: float) -> dict[str, float]:
    """Accuracies of two networks at one rate.

    Example:
      >>> margin([Row(0.5, 0.5, 0, 0.99, 9, 0, 1.0)], [Row(0.5, 0.5, 1, 0.5, 9, 0, 0.9)], 0.5)["points"]
      49.0
    """
    first, second = (next(row for row in rows if row.prune_rate == rate) for rows in (ours, plain))
    raw = [100 * first.accuracy, 100 * second.accuracy]
    again = [100 * (first.recalibrated_accuracy or 0.0), 100 * (second.recalibrated_accuracy or 0.0)]
    return {
        "ours": raw[0],
        "plain": raw[1],
        "points": raw[0] - raw[1],
        "recalibrated_ours": again[0],
        "recalibrated_plain": again[1],
        "recalibrated_points": again[0] - again[1],
    }


def summary(panels: dict[str, Curves]) -> str:
    """Say what was measured."""
    parts = []
    for kind, curves in panels.items():
        parts.append(f"\n{kind} pruning: test accuracy %, as trained->with BatchNorm recalibrated\n")
        parts.append(comparison(curves))
    parts.append("\nwhat that says:")
    for what, m in claims(panels).items():
        parts.append(
            f"  {what}: {m['ours']:.1f} % against {m['plain']:.1f} % ({m['points']:+.1f} points); recalibrated "
            f"{m['recalibrated_ours']:.1f} % against {m['recalibrated_plain']:.1f} % ({m['recalibrated_points']:+.1f})"
        )
    name, rows = list(panels["unit"].items())[1]
    parts.append(f"\n{name}, compacted:\n")
    parts.append(cost_table({name: [row for row in rows if row.prune_rate in (0.0, 0.5)]}))
    return "\n".join(parts)
