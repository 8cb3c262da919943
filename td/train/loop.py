"""The training loop: resumes where a killed run stopped, bit for bit."""

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from td import data
from td.errors import UserError
from td.io import hosts, provenance, run_folder
from td.io.checkpoint import Checkpoints
from td.io.interrupt import Stopped, listening
from td.io.log import MetricLog, read
from td.io.progress import progress
from td.train.check import check_learns, check_new
from td.train.devices import PLAIN, Execution, call_sizes, make_mesh, replicated, state_shardings, steps_per_call
from td.train.durations import to_steps
from td.train.experiment import Run, build, pruned_start
from td.train.feed import Chunk, make_feed
from td.train.score import Score, make_evaluation
from td.train.state import TrainState
from td.train.step import Metrics, make_train_step
from td.train.telemetry import make_telemetry

LOG = logging.getLogger(__name__)

PROFILED_CALLS = 10
"""So many calls of the training step are recorded, after the first, which compiles."""

HostMetrics = dict[str, np.ndarray]


def train(
    config: ConfigDict,
    folder: Path,
    execution: Execution = PLAIN,
    *,
    start: Callable[[], TrainState] | None = None,
    until: str = "",
    begun: bool = False,
) -> dict[str, Any]:
    """Train what a config describes, or go on from the newest checkpoint, or return the finished run's result.

    `start` gives the state that a new run starts from, else step 0; `until` is a duration after which to stop early,
    with a checkpoint but no `result.json`; `begun` is a part of something whose settings were checked before.
    """
    # ---- make the parts
    begun = begun or (folder / "config.json").exists()
    if not begun:
        check_new(config)
    run, state = build(config, data.load(config.data.to_dict()))
    config = run.config
    source, batch_size = run.dataset.train, config.data.batch_size
    end = to_steps(until, source.size, source.examples_per_step(batch_size)) if until else run.steps
    if end > run.steps:
        raise UserError(f"step {end} ({until}) is beyond the end of the run, {run.steps} steps")
    mesh = make_mesh(execution, source.row_counts(batch_size))
    shardings = state_shardings(state, mesh, execution.shard)
    if not begun:
        check_learns(run)
    if config.get("start", {}).get("workdir"):
        start = partial(pruned_start, config, state)
        if not begun:  # a mistake must not claim the folder
            start = [start()].pop
    with run_folder.claimed(folder, config, run.dataset.identity) as still_there:
        if (folder / "result.json").exists():
            LOG.info("%s is finished", folder)
            return run_folder.read_object(folder / "result.json", "accuracy", "loss", "examples", "steps")
        with Checkpoints(folder / "checkpoints", still_there=still_there) as checkpoints:
            # ---- resume
            state = jax.device_put(state, shardings)
            restored = checkpoints.restore(state)
            if restored is not None:
                state = restored[1]
                LOG.info("resuming from checkpoint %d in %s", restored[0], folder)
            elif start is not None:
                state = jax.device_put(jax.device_get(start()), shardings)

            # ---- train
            state, final = _loop(run, state, end, folder, checkpoints, execution, mesh)
            if not checkpoints.steps():  # there was no step to do
                checkpoints.save(end, state)

        # ---- say what was reached
        result = describe_result(run, state, final, hosts.own_folder(folder))
        if end == run.steps:
            hosts.on_first(lambda: run_folder.write_json(folder / "result.json", result))
        return result


def _loop(
    run: Run,
    state: TrainState,
    end: int,
    folder: Path,
    checkpoints: Checkpoints,
    execution: Execution,
    mesh: Mesh,
) -> tuple[TrainState, Score]:
    # ---- compile once, send batches ahead
    config, task, every, step = run.config, run.experiment.task, run.every, int(state.step)
    feed = make_feed(run.dataset, config.data.batch_size, config.seed, execution, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state), replicated(mesh)
    together = steps_per_call(execution, mesh, run.dataset.train.row_counts(config.data.batch_size))
    train_steps = {steps: make_train_step(run.experiment, shardings, feed.fetch, steps) for steps in {1, together}}
    evaluate = make_evaluation(run, mesh)
    telemetry = make_telemetry(run.experiment, config.mask.to_dict(), config.granularity)
    after = [every[name] for name in ("log", "evaluation", "checkpoint")]
    sizes = call_sizes(step, end, together, [every["telemetry"]], after)
    rate, first = f"{task.counted}_per_second", hosts.is_first()
    pending: list[Metrics] = []
    scored = None
    with (
        MetricLog(hosts.own_folder(folder), step) as log,
        listening() as stops,
        progress(total=end, initial=step, desc="train", unit="step", disable=not first) as bar,
        closing(feed.chunks(step, sizes)) as sent,
        closing(_recorded(sent, folder / "profile" if execution.profile and first else None)) as chunks,
    ):
        since, seen = time.perf_counter(), 0
        for chunk in chunks:
            # ---- step
            seen += chunk.examples
            step += chunk.steps
            last, stopping = step == end, stops(step)
            watching = every["telemetry"] > 0 and due(step, every["telemetry"], last)
            before = telemetry.targets(state) if watching else {}
            state, metrics = train_steps[chunk.steps](state, chunk.batch, run.key, feed.data)
            pending.append(metrics)
            bar.update(chunk.steps)
            evaluating = due(step, every["evaluation"], last)
            saving = due(step, every["checkpoint"], last) or stopping
            if not (evaluating or saving or watching or due(step, every["log"], last)):
                continue

            # ---- log, also before every evaluation and save: rates are of steps alone, and no bad state is saved
            values = _means(_fetch_finite(pending, step, checkpoints))
            values[rate] = seen / (time.perf_counter() - since)
            log.write(step, values)
            shown = {"loss": f"{values['loss']:.3f}", "accuracy": f"{values['accuracy']:.3f}"}
            bar.set_postfix({**shown, f"{task.counted}/s": f"{values[rate]:.0f}"})

            # ---- watch the targets
            if watching:
                log.write(step, telemetry.watch(before, state))

            # ---- evaluate
            if evaluating:
                scored, zeros = evaluate(state)
                log.write(step, {"eval/loss": scored.loss, "eval/accuracy": scored.accuracy, "eval/sparsity": zeros})

            # ---- save
            if saving:
                checkpoints.save(step, state)
                if stopping and not last:
                    raise Stopped(f"at step {step}")
            pending, since, seen = [], time.perf_counter(), 0
    return state, scored or evaluate(state)[0]


def due(step: int, interval: int, last: bool) -> bool:
    """Whether something happens at this step: at every multiple of its interval, and at the end.

    Example:
      >>> [step for step in range(1, 8) if due(step, 3, step == 7)]
      [3, 6, 7]
    """
    return last or (interval > 0 and step % interval == 0)


def _recorded(chunks: Iterator[Chunk], folder: Path | None) -> Generator[Chunk, None, None]:
    """The chunks, and a recording of what is done with those after the first, for TensorBoard and Perfetto."""
    if folder is not None:
        yield from islice(chunks, 1)
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            yield from islice(chunks, PROFILED_CALLS)
        LOG.info("recorded in %s: tensorboard --logdir, or perfetto_trace.json.gz at ui.perfetto.dev", folder)
    yield from chunks


def _fetch_finite(pending: list[Metrics], step: int, checkpoints: Checkpoints) -> HostMetrics:
    """The metrics of the steps up to this one, on the host; the first that is not finite ends the run."""
    calls = jax.device_get(pending)
    fetched = {name: np.concatenate([np.atleast_1d(metrics[name]) for metrics in calls]) for name in calls[0]}
    finite = {name: np.isfinite(fetched[name]) for name in ("loss", "gradient_norm", "parameter_norm")}
    if not np.all(list(finite.values())):
        bad = int(np.argmin(np.all(list(finite.values()), axis=0)))
        name = next(name for name, good in finite.items() if not good[bad])
        at = step - len(fetched[name]) + 1 + bad
        saved = checkpoints.steps()
        good = f"the last good checkpoint is {checkpoints.folder / str(saved[-1])}" if saved else "none was saved"
        raise UserError(
            f"the {name.replace('_', ' ')} is {fetched[name][bad]} at step {at}; {good}; "
            "try a lower optim.learning_rate, or a warm-up, in another folder"
        )
    return fetched


def _means(fetched: HostMetrics) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in fetched.items()}


def describe_result(run: Run, state: TrainState, final: Score, log_folder: Path) -> dict[str, Any]:
    """What a finished run has reached, with its config and where it was computed, for `result.json`."""
    rate = f"{run.experiment.task.counted}_per_second"
    rates = [line[rate] for line in read(log_folder) if rate in line]
    return {
        "accuracy": final.accuracy,
        "loss": final.loss,
        "examples": final.examples,
        "counted": run.experiment.task.counted,
        "steps": int(state.step),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        rate: float(np.median(rates)) if rates else 0.0,
        "config": json.loads(run.config.to_json()),
        **provenance.describe(),
    }
