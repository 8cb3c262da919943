"""The quickstart: four networks on the embedded digits, pruned at 0 to 90 %, in a table and a picture."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from td.evaluate.curve_tables import COST_AXES, comparison, cost_table, label
from td.evaluate.options import Options, parse_rates
from td.evaluate.plots import plot
from td.evaluate.prune_curve import Row, prune_curves
from td.io import provenance
from td.io.files import write_json
from td.train.experiment import load_trained
from td.train.loop import train

RATES = {"weight": "0:0.9:0.1", "group": "0,0.1,0.3,0.5,0.7,0.9"}  # of groups, each is a network to compile
SCORED = Options(batch_size=128, recalibrate_batch_norm=True, recalibration_batches=11)  # 11: one epoch
CALLS = 60  # timed calls of every compacted network
COSTS = ("prune_rate", *Row._fields[Row._fields.index("parameters") :])

NETWORKS = {
    "mask=none": ("weight", "group"),
    "mask=targeted,granularity=weight": ("weight",),
    "mask=ramping,granularity=weight": ("weight",),
    "mask=targeted,granularity=group": ("group",),
}
"""Arguments of the config -> granularities at which the network is pruned."""

COMPARED = {
    "70 % of the weights removed, targeted dropout": ("weight", 1, 0.7),
    "90 % of the weights removed, ramping": ("weight", 2, 0.9),
    "70 % of the coupled groups removed, targeted group dropout": ("group", 1, 0.7),
}
"""Claim -> granularity, number of its network there, and prune rate; network 0, without dropout, is the other side."""

Panels = dict[str, dict[str, list[Row]]]  # granularity -> name of a network -> its prune curve


def run(get_config: Callable[[str], ConfigDict], folder: Path, started: float) -> str:
    """Train the four networks and compare their prune curves; rerun to resume."""
    resumed = folder.exists()
    trained: dict[str, dict[str, Any]] = {"weight": {}, "group": {}}
    for number, (argument, granularities) in enumerate(NETWORKS.items(), start=1):
        config = get_config(argument)
        name = label(config.mask.to_dict())
        print(f"[{number}/{len(NETWORKS)}] {name}", flush=True)
        workdir = folder / name.replace(" ", "_").replace("/", "-")
        train(config, workdir)
        for granularity in granularities:
            trained[granularity][name] = load_trained(workdir, finished=True)
    panels: Panels = {}
    for granularity, networks in trained.items():
        options = SCORED._replace(granularity=granularity, compact=granularity == "group", timing_repeats=CALLS)
        curves = prune_curves(list(networks.values()), parse_rates(RATES[granularity]), options)
        panels[granularity] = dict(zip(networks, curves, strict=True))
    picture, groups = folder / "quickstart.png", "group pruning, compacted"
    plot({groups: panels["group"], "weight pruning": panels["weight"]}, picture, {groups: COST_AXES["flops"]})
    rows = {kind: {name: [row._asdict() for row in c] for name, c in curves.items()} for kind, curves in panels.items()}
    seconds = time.perf_counter() - started
    timing = {} if resumed else {"seconds": round(seconds, 1)}
    found = {"curves": rows, "claims": claims(panels), "compacted": compacted(panels), "calls": CALLS}
    write_json(folder / "quickstart.json", {**found, **timing, **provenance.describe()})
    return f"{summary(panels)}\n\n{seconds:.0f} seconds; picture: {picture}"


def compacted(panels: Panels) -> dict[str, list[dict[str, float | None]]]:
    """Measure the costs of the targeted group network, whole and without 70 % of its groups."""
    name, rows = list(panels["group"].items())[1]
    return {name: [{word: getattr(row, word) for word in COSTS} for row in rows if row.prune_rate in (0.0, 0.7)]}


def claims(panels: Panels) -> dict[str, dict[str, float]]:
    """Compare accuracies with the network without dropout, as trained and recalibrated."""
    found: dict[str, dict[str, float]] = {}
    for what, (kind, number, rate) in COMPARED.items():
        curves = list(panels[kind].values())
        ours, plain = (next(row for row in curves[i] if row.prune_rate == rate) for i in (number, 0))
        found[what] = {}
        for prefix in ("", "recalibrated_"):
            first, second = (100 * getattr(row, f"{prefix}accuracy") for row in (ours, plain))
            found[what] |= {f"{prefix}ours": first, f"{prefix}plain": second, f"{prefix}points": first - second}
    return found


def summary(panels: Panels) -> str:
    """Describe what was measured."""
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
    name, rows = list(panels["group"].items())[1]
    table = cost_table({name: [row for row in rows if row.prune_rate in (0.0, 0.7)]})
    return "\n".join([*parts, f"\n{name}, compacted:\n", table])
