"""Estimates of what the points of a sweep cost, before they run."""

from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import Any

from ml_collections import ConfigDict
from tabulate import tabulate

from td import data
from td.errors import UserError
from td.io.files import read_json
from td.sweep.point import Point
from td.train.experiment import build
from td.train.step import make_train_step

FORWARD = 1 / 3  # fraction of a training step that is its forward pass: the backward one is two products for its one


def run_cost(config: ConfigDict) -> tuple[int, float, float]:
    """Count the steps of a run, and floating-point operations of a step, as XLA does, and of scoring the network."""
    run, shapes = build(config, data.load(config.data.to_dict()), shapes_only=True)
    train, size = run.dataset.train, config.data.batch_size
    train_step: Any = make_train_step(run.experiment)  # lowered, but not compiled
    step = train_step.lower(shapes, train.blank_batch(size), run.key).cost_analysis()["flops"]
    return run.steps, step, FORWARD * step * run.dataset.evaluation.size / train.examples_per_step(size)


def dry_run(points: Sequence[Point]) -> str:
    """List points with their states and costs, timed by the speed of those that are trained. Writes nothing."""
    costs: dict[str, Any] = {}
    speeds, left, lines = [], 0.0, []
    for point in points:
        network = str({k: v for k, v in point.title.items() if k != "seed" and not isinstance(v, float)})  # cost alike
        lines.append({**point.title, "state": point.state()})
        try:
            steps, step, scoring = costs[network] = costs.get(network) or run_cost(point.config)
        except UserError as error:
            lines[-1]["steps"] = str(error).partition(":")[0]  # its data are missing
            continue
        operations = steps * step + point.scorings * scoring
        left += 0.0 if lines[-1]["state"] == "finished" else operations
        lines[-1] |= {"steps": f"{steps:,}", "GFLOP/step": f"{step / 1e9:.3g}", "TFLOP": f"{operations / 1e12:.3g}"}
        if (result := point.folder / "result.json").exists():
            rates = [value for name, value in read_json(result).items() if name.endswith("_per_second")]
            speeds += [step * rate / point.config.data.batch_size for rate in rates]
    about = f"about {timedelta(seconds=round(left / median(speeds)))} at the speed of the others" if speeds else ""
    table = tabulate(lines, headers="keys", disable_numparse=True)
    return f"{table}\n\n{len(lines)} runs, still to do: {left / 1e12:.3g} TFLOP {about}"
