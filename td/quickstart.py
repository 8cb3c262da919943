"""The main job in small: four networks on the embedded digits, pruned at 0 to 90 %, a table and a picture."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from td import provenance, report
from td.curve import Row, parse_rates, prune_curve
from td.experiment import load_trained
from td.train import train
from td.workdir import write_json

RATES = "0:0.9:0.1"
RECALIBRATION_BATCHES = 11  # one epoch


class Member(NamedTuple):
    """One network: its config arguments, its length, its method's numbers, and what it is pruned of."""

    argument: str
    duration: str
    mask: dict[str, float | str]
    pruned: tuple[str, ...]


MEMBERS = (
    Member("mask=none", "40 epochs", {}, ("weight", "unit")),
    Member(
        "mask=targeted,granularity=weight",
        "40 epochs",
        {"drop_rate": 0.66, "target_proportion": 0.75},
        ("weight",),
    ),
    Member(
        "mask=ramping,granularity=weight",
        "60 epochs",
        {"drop_rate": 0.99, "target_proportion": 0.90, "stage": "20 epochs"},
        ("weight",),
    ),
    Member("mask=targeted,granularity=unit", "40 epochs", {"drop_rate": 0.5, "target_proportion": 0.5}, ("unit",)),
)

Curves = dict[str, list[Row]]


def run(get_config: Callable[[str], ConfigDict], folder: Path) -> str:
    """Train the four networks, or go on where a killed quickstart stopped, and compare their prune curves.

    Args:
      get_config: of `configs/digits_resnet.py`.
      folder: where everything goes: one run folder a network, `quickstart.json`, `quickstart.png` and `.pdf`.

    Returns:
      The tables, the three claims with their measured numbers, and the picture's path, for the screen.

    Raises:
      UserError: as `td.train.train`.
    """
    started = time.perf_counter()
    panels: dict[str, Curves] = {"weight": {}, "unit": {}}
    for number, member in enumerate(MEMBERS, start=1):
        config = get_config(member.argument)
        config.duration = member.duration
        config.mask.update(member.mask)
        name = report.label(config.mask.to_dict())
        print(f"[{number}/{len(MEMBERS)}] {name}", flush=True)
        workdir = folder / name.replace(" ", "_").replace("/", "-")
        train(config, workdir)
        _, trained = load_trained(workdir)
        for granularity in member.pruned:
            panels[granularity][name] = prune_curve(
                trained,
                parse_rates(RATES),
                granularity=granularity,
                batch_size=128,
                recalibration_batches=RECALIBRATION_BATCHES,
            )
    picture = folder / "quickstart.png"
    report.plot({f"{name} pruning": curves for name, curves in panels.items()}, picture)
    rows = {kind: {name: [row._asdict() for row in c] for name, c in curves.items()} for kind, curves in panels.items()}
    seconds = round(time.perf_counter() - started, 1)
    write_json(folder / "quickstart.json", {"curves": rows, "seconds": seconds, **provenance.describe()})
    return summary(panels, picture)


def summary(panels: dict[str, Curves], picture: Path) -> str:
    """Say what was measured.

    Args:
      panels: "weight" and "unit" -> label -> rows, the plain network first.
      picture: its path.

    Returns:
      Text for the screen.
    """
    parts = []
    for kind, curves in panels.items():
        parts.append(f"\n{kind} pruning: test accuracy %, as trained -> with BatchNorm recalibrated\n")
        parts.append(report.comparison(curves))
    plain, targeted, ramping = panels["weight"].values()
    plain_units, targeted_units = panels["unit"].values()
    parts.append("\nwhat that says:")
    parts.append(claim("70 % of the weights removed, targeted dropout", targeted, plain, 0.7))
    parts.append(claim("90 % of the weights removed, ramping", ramping, plain, 0.9))
    parts.append(claim("50 % of the units removed, targeted unit dropout", targeted_units, plain_units, 0.5))
    return "\n".join([*parts, "", f"picture: {picture}"])


def claim(what: str, ours: Sequence[Row], plain: Sequence[Row], rate: float) -> str:
    """One comparison at one rate, raw first, recalibrated behind it.

    Args:
      what: what is compared, in words.
      ours: the curve of the method.
      plain: the curve of the network without dropout.
      rate: the prune rate, one of the curves'.

    Returns:
      One line.

    Example:
      >>> claim("50 % removed, targeted", [Row(0.5, 0.5, 0, 0.99, 9, 0, 1.0)], [Row(0.5, 0.5, 1, 0.5, 9, 0, 0.9)], 0.5)
      '  50 % removed, targeted: 99.0 % against 50.0 % (+49.0 points); recalibrated 100.0 % against 90.0 % (+10.0)'
    """
    first, second = (next(row for row in rows if row.prune_rate == rate) for rows in (ours, plain))
    raw = (100 * first.accuracy, 100 * second.accuracy)
    again = (100 * (first.recalibrated_accuracy or 0.0), 100 * (second.recalibrated_accuracy or 0.0))
    return (
        f"  {what}: {raw[0]:.1f} % against {raw[1]:.1f} % ({raw[0] - raw[1]:+.1f} points); "
        f"recalibrated {again[0]:.1f} % against {again[1]:.1f} % ({again[0] - again[1]:+.1f})"
    )
