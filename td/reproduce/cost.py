"""What a request would cost, without doing it: operations, bytes, and time by a short measurement on this machine."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tabulate import tabulate

from td import data
from td.data import Dataset, Split
from td.data.task import classification
from td.errors import UserError
from td.reproduce.jobs import Job, experiment, part_of
from td.reproduce.request import Request
from td.reproduce.results import progress_of
from td.reproduce.run_job import modes_of
from td.reproduce.run_jobs import planned
from td.reproduce.table import Network, Table
from td.train.experiment import Run, build, build_abstract
from td.train.state import TrainState
from td.train.step import make_train_step

STEPS = 8
"""Steps of the measurement, after two for compiling and warming up."""

FORWARD = 1 / 3
"""The share of a training step that is its forward pass: the backward one is two products for its one."""


class Cost(NamedTuple):
    """Of one run."""

    steps: int  # of training
    step_operations: float  # floating-point operations of one, as XLA counts them
    step_bytes: float  # bytes read and written in one, before anything is fused
    operations: float  # of the whole run with its prune curves


def step_cost(run: Run, state: TrainState, batch_size: int) -> tuple[float, float]:
    """Floating-point operations of a training step, and bytes before fusion, from its program, not compiled."""
    batch = run.dataset.train.blank_batch(batch_size)
    train_step: Any = make_train_step(run.experiment)
    analysis = train_step.lower(state, batch, run.key).cost_analysis()
    return analysis["flops"], analysis["bytes accessed"]


def run_cost(table: Table, job: Job) -> Cost:
    """What one run of a table costs."""
    run, shapes = build_abstract(job.config, data.load(job.config.data.to_dict()))
    operations, count = step_cost(run, shapes, job.config.data.batch_size)
    each = operations / run.dataset.train.examples_per_step(job.config.data.batch_size)
    curves = len(modes_of(table, job.config.mask.to_dict())) * len(job.network.rates) * (1 + bool(shapes.batch_stats))
    scored = FORWARD * each * run.dataset.evaluation.size * curves
    return Cost(run.steps, operations, count, run.steps * operations + scored)


def calibrate(configs: Path) -> float:
    """Measure what this machine does: floating-point operations a second in training a small residual network."""
    config = experiment(configs, Network("", "cifar10_resnet32", {"mask": "none"}, ()), "cpu", 0, {})
    size = config.data.batch_size
    split = Split(np.zeros((size, 32, 32, 3), np.uint8), np.zeros(size, np.int32))
    run, state = build(config, Dataset(split, split, 10, classification()))
    operations, _ = step_cost(run, state, size)
    train_step, batch = make_train_step(run.experiment), split.blank_batch(size)
    for _ in range(2):
        state, _ = train_step(state, batch, run.key)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(STEPS):
        state, _ = train_step(state, batch, run.key)
    jax.block_until_ready(state)
    return STEPS * operations / (time.perf_counter() - start)


def dry_run(request: Request) -> str:
    """List the runs of a request with their state and an estimate of their cost. Writes nothing."""
    found = planned(request)
    mine = set(part_of(list(dict.fromkeys(job.run for _, job in found)), request.part))
    speed = calibrate(request.configs)
    lines, total, unknown = [], 0.0, 0
    costs: dict[str, Cost | UserError] = {}
    for table, job in found:
        if job.run not in mine:
            continue
        now = progress_of(request.folder, job.table, job.run)
        if _same_cost(job.config) not in costs:
            costs[_same_cost(job.config)] = _cost(table, job)
        cost = costs[_same_cost(job.config)]
        named = [
            job.table,
            job.network.column,
            ",".join(f"{100 * r:g}" for r in job.network.rates[:1]),
            str(job.seed),
            now,
        ]
        if isinstance(cost, UserError):
            lines.append([*named, str(cost).split(":")[0]])
            unknown += 1
            continue
        seconds = cost.operations / speed
        total += 0.0 if now == "finished" else seconds
        numbers = [f"{cost.steps:,}", f"{cost.step_operations / 1e9:.3g}", f"{cost.step_bytes / 1e9:.3g}"]
        lines.append([*named, *numbers, f"{cost.operations / 1e12:.3g}", clock(seconds)])
    heads = ["table", "column", "from %", "seed", "state", "steps", "GFLOP/step", "GB/step", "TFLOP", "about"]
    text = tabulate(lines, heads, disable_numparse=True, colalign=("left",) * 3 + ("right",) * 7)
    device = jax.devices()[0].device_kind
    more = f", and {unknown} runs whose data are not there" if unknown else ""
    return (
        f"{text}\n\n{len(lines)} runs at scale {request.scale}, still to do: about {clock(total)}{more}\n"
        f"by {speed / 1e9:.3g} GFLOP/s, measured just now in training a small residual network on {device}; bytes are "
        "those before fusion; other networks may be several times faster or slower"
    )


def _cost(table: Table, job: Job) -> Cost | UserError:
    try:
        return run_cost(table, job)
    except UserError as error:
        return error


def _same_cost(config: ConfigDict) -> str:
    return json.dumps({**json.loads(config.to_json()), "seed": 0}, sort_keys=True)


def clock(seconds: float) -> str:
    """A length of time in words.

    Example:
      >>> clock(90), clock(7200), clock(200_000)
      ('90 s', '2.0 h', '2.3 days')
    """
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
