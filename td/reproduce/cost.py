"""The cost of a request, without running it: operations, bytes, and time by a short measurement on this machine."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tabulate import tabulate

from td import data
from td.data import Dataset, Split
from td.data.task import classification
from td.errors import UserError
from td.reproduce.jobs import Job, Request, experiment, part_of, planned, progress_of
from td.reproduce.run_jobs import modes_of
from td.reproduce.table import Network, Table
from td.train.experiment import Run, build
from td.train.state import TrainState
from td.train.step import make_train_step

STEPS = 8  # of the measurement, after two for compiling and warming up
FORWARD = 1 / 3  # fraction of a training step that is its forward pass: the backward one is two products for its one


class Cost(NamedTuple):
    """Cost of one run."""

    steps: int  # of training
    step_operations: float  # floating-point operations of one, as XLA counts them
    step_bytes: float  # bytes read and written in one, before fusion
    operations: float  # of the whole run with its prune curves


def step_cost(run: Run, state: TrainState, batch_size: int) -> tuple[float, float]:
    """Count floating-point operations of a training step, and bytes before fusion, without compiling it."""
    train_step: Any = make_train_step(run.experiment)
    analysis = train_step.lower(state, run.dataset.train.blank_batch(batch_size), run.key).cost_analysis()
    return analysis["flops"], analysis["bytes accessed"]


def run_cost(table: Table, job: Job) -> Cost:
    """Count what one run of a table costs."""
    run, shapes = build(job.config, data.load(job.config.data.to_dict()), shapes_only=True)
    operations, count = step_cost(run, shapes, job.config.data.batch_size)
    each = operations / run.dataset.train.examples_per_step(job.config.data.batch_size)
    curves = len(modes_of(table, job.config.mask.to_dict())) * len(job.network.rates) * (1 + bool(shapes.batch_stats))
    scored = FORWARD * each * run.dataset.evaluation.size * curves
    return Cost(run.steps, operations, count, run.steps * operations + scored)


def calibrate(configs: Path) -> float:
    """Measure this machine's floating-point operations a second in training a small residual network."""
    config = experiment(configs, Network("", "cifar10_resnet32", {"mask": "none"}, ()), "cpu", 0, {})
    size = config.data.batch_size
    split = Split(np.zeros((size, 32, 32, 3), np.uint8), np.zeros(size, np.int32))
    run, state = build(config, Dataset(split, split, 10, classification()))
    operations, _ = step_cost(run, state, size)
    train_step, batch = make_train_step(run.experiment), split.blank_batch(size)
    moments = []
    for _ in range(2 + STEPS):
        state, _ = jax.block_until_ready(train_step(state, batch, run.key))
        moments.append(time.perf_counter())
    return STEPS * operations / (moments[-1] - moments[1])


def dry_run(request: Request) -> str:
    """List the runs of a request with their state and an estimate of their cost. Writes nothing."""
    found, speed = part_of(planned(request), request.part), calibrate(request.configs)
    costs: dict[Any, Cost | str] = {}  # the same for all seeds
    lines, total = [], 0.0
    for table, job in found:
        network = (job.table, job.network.column, job.network.rates)
        if network not in costs:
            try:
                costs[network] = run_cost(table, job)
            except UserError as error:  # its data are missing
                costs[network] = str(error).partition(":")[0]
        state, cost = progress_of(request.folder, job.table, job.run), costs[network]
        line = [job.table, job.network.column, f"{100 * job.network.rates[0]:g}", str(job.seed), state]
        if isinstance(cost, str):
            lines.append([*line, cost])
            continue
        seconds = cost.operations / speed
        total += 0.0 if state == "finished" else seconds
        numbers = [f"{cost.steps:,}", f"{cost.step_operations / 1e9:.3g}", f"{cost.step_bytes / 1e9:.3g}"]
        lines.append([*line, *numbers, f"{cost.operations / 1e12:.3g}", clock(seconds)])
    heads = ["table", "column", "from %", "seed", "state", "steps", "GFLOP/step", "GB/step", "TFLOP", "about"]
    text = tabulate(lines, heads, disable_numparse=True, colalign=("left",) * 3 + ("right",) * 7)
    unknown = sum(len(line) < len(heads) for line in lines)
    more = f", and {unknown} runs whose data are missing" if unknown else ""
    device = jax.devices()[0].device_kind
    return (
        f"{text}\n\n{len(lines)} runs at scale {request.scale}, still to do: about {clock(total)}{more}\n"
        f"at {speed / 1e9:.3g} GFLOP/s, measured in training a small residual network on {device}; other networks may "
        "be several times faster or slower. Bytes are before fusion."
    )


def clock(seconds: float) -> str:
    """Format a duration, e.g. 90 s, 2.0 h."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
