"""Estimates of what the points of a sweep cost, before anything runs."""

import json
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tabulate import tabulate

from td import data
from td.data import Dataset, Split
from td.data.base import classification
from td.errors import UserError
from td.io import cli
from td.io.run_folder import flatten
from td.sweep.point import Point, make_config
from td.train.experiment import Run, build
from td.train.state import TrainState
from td.train.step import make_train_step

STEPS = 8  # of the measurement, after two for compiling and warming up
FORWARD = 1 / 3  # fraction of a training step that is its forward pass: the backward one is two products for its one


def step_cost(run: Run, state: TrainState) -> float:
    """Count floating-point operations of a training step, as XLA counts them, without compiling it."""
    train_step: Any = make_train_step(run.experiment)
    batch = run.dataset.train.blank_batch(run.config.data.batch_size)
    return train_step.lower(state, batch, run.key).cost_analysis()["flops"]


def run_cost(config: ConfigDict) -> tuple[int, float, float]:
    """Count the steps of a run, and floating-point operations of a step and of scoring the network."""
    run, shapes = build(config, data.load(config.data.to_dict()), shapes_only=True)
    operations, dataset = step_cost(run, shapes), run.dataset
    examples = dataset.evaluation.size / dataset.train.examples_per_step(config.data.batch_size)
    return run.steps, operations, FORWARD * operations * examples


def calibrate() -> float:
    """Measure this machine's floating-point operations a second in training a small residual network."""
    config = make_config(cli.CONFIGS / "cifar10_resnet32.py", {"mask": "none", "scale": "cpu"})
    size = config.data.batch_size
    split = Split(np.zeros((size, 32, 32, 3), np.uint8), np.zeros(size, np.int32))
    run, state = build(config, Dataset(split, split, 10, classification()))
    train_step, batch, operations = make_train_step(run.experiment), split.blank_batch(size), step_cost(run, state)
    moments = []
    for _ in range(2 + STEPS):
        state, _ = jax.block_until_ready(train_step(state, batch, run.key))
        moments.append(time.perf_counter())
    return STEPS * operations / (moments[-1] - moments[1])


def dry_run(points: Sequence[Point]) -> str:
    """List points with their state and an estimate of their cost. Writes nothing."""
    speed, total, lines = calibrate(), 0.0, []
    costs: dict[str, tuple[int, float, float]] = {}
    for point in points:
        settings = flatten(point.config.to_dict())  # fractions and the seed cost nothing
        network = json.dumps({k: v for k, v in settings.items() if k != "seed" and not isinstance(v, float)})
        line = {**point.title, "state": point.state()}
        try:
            steps, step, scoring = costs[network] = costs.get(network) or run_cost(point.config)
        except UserError as error:
            lines.append({**line, "steps": str(error).partition(":")[0]})  # its data are missing
            continue
        operations = steps * step + point.scorings * scoring
        total += 0.0 if line["state"] == "finished" else operations / speed
        numbers = {"steps": f"{steps:,}", "GFLOP/step": f"{step / 1e9:.3g}", "TFLOP": f"{operations / 1e12:.3g}"}
        lines.append({**line, **numbers, "about": clock(operations / speed)})
    return (
        f"{tabulate(lines, headers='keys', disable_numparse=True)}\n\n{len(lines)} runs, still to do: about "
        f"{clock(total)} at {speed / 1e9:.3g} GFLOP/s, measured in training a small residual network on "
        f"{jax.devices()[0].device_kind}; other networks may be several times faster or slower."
    )


def clock(seconds: float) -> str:
    """Format a duration, e.g. 90 s, 2.0 h."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
