"""The jobs of a request, here or on a cluster: train, score, write result files and reports; and what they cost."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tabulate import tabulate

from td import data
from td.data import Dataset, Split
from td.data.base import classification
from td.errors import UserError
from td.evaluate.curve_files import mode_settings
from td.evaluate.options import Options
from td.evaluate.prune_curve import prune_curve
from td.io import log, provenance
from td.io.files import read_json, write_json, write_text
from td.io.interrupt import Stopped, listening
from td.io.progress import progress
from td.io.run_folder import Busy
from td.reproduce.jobs import Job, Request, experiment, part_of, planned, progress_of, result_path, write_plan
from td.reproduce.report import write_report
from td.reproduce.table import Network, Table, is_file_name, mode_of
from td.reproduce.table1 import measure_change
from td.train.experiment import Run, build, load_trained
from td.train.loop import train_rounds
from td.train.state import TrainState
from td.train.step import make_train_step

LOG = logging.getLogger(__name__)

RECALIBRATION = {"paper": 20, "short": 20, "small": 8, "cpu": 4, "smoke": 1}  # batches of 500
STEPS = 8  # of the measurement, after two for compiling and warming up
FORWARD = 1 / 3  # fraction of a training step that is its forward pass: the backward one is two products for its one


def reproduce(request: Request) -> str:
    """Run the unfinished jobs of a request, and write the reports."""
    found = planned(request)
    mine = part_of(found, request.part)
    for given in request.tables:
        name = Path(given).stem
        write_plan(request.folder, name, request.scale, [job for _, job in found if job.table == name])
        if is_file_name(given):  # its reports can be made again from this folder alone
            write_text(request.folder / name / f"{name}.py", Path(given).read_text())
    counts: Counter[str] = Counter()
    try:
        with listening() as stops:
            for table, job in progress(mine, unit="run"):
                counts[_run(table, job, request)] += 1
                if stops(0):
                    raise Stopped(f"after {job.run}")
    except BaseException:
        with suppress(UserError, OSError):  # the first error is the one to report
            for name in request.tables:
                write_report(request.configs, request.folder, name)
        raise
    written = [write_report(request.configs, request.folder, name) for name in request.tables]
    counted = ", ".join(f"{count} {state}" for state, count in counts.items())
    text = "\n".join([f"runs: {counted}", *map(str, written)])
    if counts["failed"]:
        LOG.info("%s", text)
        raise UserError(f"{counts['failed']} runs failed, see their .failed.txt files: try again with --retry_failed")
    return text


def submit(request: Request, parts: int, logs: Path, cluster: str, options: Mapping[str, str]) -> str:
    """Submit a request as a Slurm array, one task a part; `options` are of submitit's executor."""
    try:
        import submitit
    except ImportError:
        raise UserError("--launcher=slurm needs submitit: pip install -e '.[slurm]'") from None
    planned(request)
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(name="td", **options)
        requests = [request._replace(part=f"{number}/{parts}") for number in range(1, parts + 1)]
        submitted = executor.map_array(reproduce, requests)
    except (RuntimeError, TypeError, FileNotFoundError) as error:
        raise UserError(f"cannot submit: {error}") from None
    return "submitted: " + ", ".join(job.job_id for job in submitted)


def _run(table: Table, job: Job, request: Request) -> str:
    """Do one job, unless it is done; returns its state."""
    before, path = progress_of(request.folder, job.table, job.run), result_path(request.folder, job.table, job.run)
    if before == "finished" or (before == "failed" and not request.retry_failed):
        return before
    LOG.info("%s: %s, seed %d", job.table, job.network.column, job.seed)
    failure = path.with_suffix(".failed.txt")
    try:
        run_job(job, table, request)
    except (Stopped, KeyboardInterrupt):
        raise
    except Busy:
        return "done elsewhere"
    except Exception as error:  # one failed run does not stop the others
        write_text(failure, f"{type(error).__name__}: {error}\n")
        LOG.error("%s failed: %s", job.run, " ".join(str(error).split()))
        return "failed"
    failure.unlink(missing_ok=True)
    return "done"


def modes_of(table: Table, mask: Mapping[str, Any]) -> list[str]:
    """List the modes that a network is scored in; dense always, for the report's telemetry."""
    own = (mode_of(mask["name"], table.granularity, scoring) for scoring in table.scorings)
    return list(dict.fromkeys(["dense", *own]))


def run_job(job: Job, table: Table, request: Request) -> None:
    """Train a network, resume it, or take the finished one; score it; write its result file."""
    run_folder, path = request.folder / "runs" / job.run, result_path(request.folder, job.table, job.run)
    trained = train_rounds(job.config, run_folder)
    content: dict[str, Any] = {
        "table": job.table,
        "column": job.network.column,
        "rates": job.network.rates,
        "seed": job.seed,
        "scale": request.scale,
        "run": job.run,
        "note": request.data_note,
        "settings": dict(job.network.settings),
        "changes": dict(job.changes),
        "searched": dict(job.tuned),
        "granularity": table.granularity,
        "training": {key: value for key, value in trained.items() if key != "config"},
        "config": trained["config"],
        "telemetry": [line for line in log.read(run_folder) if "targets/changed" in line],
    }
    if table.measure == "change_of_loss":
        content["change_of_loss"] = measure_change(run_folder, path)
    else:
        modes = modes_of(table, job.config.mask.to_dict())
        content["curves"] = {mode: curve(job, table, run_folder, mode, request) for mode in modes}
    write_json(path, content | provenance.describe())


def curve(job: Job, table: Table, run_folder: Path, mode: str, request: Request) -> list[dict[str, Any]]:
    """Compute the prune curve of a trained network, or read it from the run's folder."""
    scale, reconstruct = request.scale, request.reconstruct and mode != "stochastic"
    # With dropout active every batch is one draw, and a few draws are not the mean over all of them.
    batches = RECALIBRATION[scale] * (10 if mode == "stochastic" and scale != "smoke" else 1)
    settings: dict[str, Any] = {"granularity": table.granularity, "mode": mode, "rates": list(job.network.rates)}
    settings |= {"recalibration_batches": batches, "beams": table.beams}
    settings |= {"reconstruct": True} if reconstruct else {}
    path = run_folder / f"{job.table}-{mode}.json"
    if path.exists() and (known := read_json(path))["settings"] == settings:
        return known["rows"]
    run, state = load_trained(run_folder, mode_settings(job.config.mask, mode), finished=True)
    options = Options(table.granularity, mode, recalibrate_batch_norm=bool(state.batch_stats), reconstruct=reconstruct)
    options = options._replace(recalibration_batches=batches, bleu=table.beams > 0, beams=table.beams or options.beams)
    rows = [row._asdict() for row in prune_curve(run, state, job.network.rates, options)]
    write_json(path, {"settings": settings, "rows": rows})
    return rows


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
