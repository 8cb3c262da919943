"""The training loop, once or in rounds: resumes where a killed run stopped, bit for bit."""

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from td import data
from td.errors import UserError
from td.io import hosts, provenance, run_folder, track
from td.io.checkpoint import Checkpoints
from td.io.files import Path, read_json, staged, write_json
from td.io.interrupt import Stopped, listening
from td.io.log import MetricLog, read
from td.io.progress import progress
from td.masks import draw_ticket, find
from td.train import devices
from td.train.calibrate import pruned_start
from td.train.config import check_config, expand_percent, to_steps
from td.train.devices import PLAIN, Execution
from td.train.experiment import Run, build, check_schedules, load_trained
from td.train.score import Score, make_evaluation
from td.train.state import TrainState
from td.train.step import make_train_step
from td.train.telemetry import make_telemetry

LOG = logging.getLogger(__name__)

PROFILED_CALLS = 10  # calls of the training step that are recorded, after the first, which compiles


def train(
    config: ConfigDict,
    folder: Path,
    execution: Execution = PLAIN,
    *,
    start: Callable[[], TrainState] | None = None,
    until: str = "",
) -> dict[str, Any]:
    """Train the run described by `config`. Resumes from the latest checkpoint in `folder`.

    Returns the stored result if the run is finished. `start` makes the state that a new run starts from, by default
    that of step 0; `until` is a duration after which to stop early, with a checkpoint but without `result.json`.
    """
    # ---- build
    track.check(execution.track)
    check_config(config)
    run, state = build(config, data.load(config.data.to_dict()))
    check_schedules(run)
    config = run.config
    source, batch_size = run.dataset.train, config.data.batch_size
    end = to_steps(until, source.size, source.examples_per_step(batch_size)) if until else run.steps
    if end > run.steps:
        raise UserError(f"step {end} ({until}) is beyond the end of the run, {run.steps} steps")
    mesh = devices.make_mesh(execution, source.row_counts(batch_size))
    shardings = devices.state_shardings(state, mesh, execution.shard)

    # ---- resume
    with run_folder.lock(folder, config, run.dataset.identity):
        if (folder / "result.json").exists():
            LOG.info("%s is finished", folder)
            return read_json(folder / "result.json")
        with Checkpoints(folder / "checkpoints") as checkpoints:
            restored = checkpoints.restore(jax.device_put(state, shardings))
            if restored is not None:
                state = restored[1]
                LOG.info("resuming from checkpoint %d in %s", restored[0], folder)
            elif config.start.workdir:
                state = jax.device_get(pruned_start(config, state))
            elif start is not None:
                state = jax.device_get(start())
            state = jax.device_put(state, shardings)
            hosts.on_first(lambda: run_folder.record(folder, config, run.dataset.identity))

            # ---- train
            state, scored = _loop(run, state, end, folder, checkpoints, execution, mesh)
            if not checkpoints.steps():  # there was no step to do
                checkpoints.save(end, state)

        # ---- write the result
        result = describe_result(run, state, scored, folder)
        if end == run.steps:
            hosts.on_first(lambda: write_json(folder / "result.json", result))
        return result


def _loop(
    run: Run, state: TrainState, end: int, folder: Path, checkpoints: Checkpoints, execution: Execution, mesh: Mesh
) -> tuple[TrainState, Score]:
    # ---- compile once, send batches ahead
    config, every, step, first = run.config, run.every, int(state.step), hosts.is_first()
    together = devices.steps_per_call(execution, mesh, run.dataset.train.row_counts(config.data.batch_size))
    source = devices.make_source(run.dataset, execution, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state), devices.replicated(mesh)
    train_steps = {steps: make_train_step(run.experiment, shardings, source.fetch, steps) for steps in {1, together}}
    evaluate = make_evaluation(run, mesh)
    telemetry = make_telemetry(run.experiment, config.mask.to_dict(), config.granularity)
    after = [every[name] for name in ("log", "evaluation", "checkpoint")]
    sizes = devices.call_sizes(step, end, together, [every["telemetry"]], after)
    rate, pending, scored = f"{run.experiment.task.counted}_per_second", [], None
    with (
        MetricLog(folder, step, config, execution.track) if first else nullcontext() as log,
        listening() as stops,
        progress(total=end, initial=step, desc="train", unit="step", disable=not first) as bar,
        closing(devices.prefetch(source, config.data.batch_size, config.seed, step, sizes, mesh)) as sent,
        closing(_profiled(sent, folder / "profile" if execution.profile and first else None)) as calls,
    ):
        since, examples = time.perf_counter(), 0
        for steps, more, batch in calls:
            # ---- step
            step, examples = step + steps, examples + more
            last, stopping = step == end, stops(step)
            watching = every["telemetry"] > 0 and due(step, every["telemetry"], last)
            before = telemetry.targets(state) if watching else {}
            state, metrics = train_steps[steps](state, batch, run.key, source.data)
            pending.append(metrics)
            bar.update(steps)
            evaluating = due(step, every["evaluation"], last)
            saving = due(step, every["checkpoint"], last) or stopping
            if not (evaluating or saving or watching or due(step, every["log"], last)):
                continue

            # ---- log, also before every save: rates are of steps alone, and no bad state is saved
            values = finite_means(pending, step, checkpoints)
            values |= {rate: examples / (time.perf_counter() - since), "progress": step / run.steps}
            bar.set_postfix({name: f"{values[name]:.3g}" for name in ("loss", "accuracy")}, refresh=False)
            if watching:
                values |= telemetry.watch(before, state)
            if evaluating:
                scored, zeros = evaluate(state)
                values |= scored.logged(zeros)
            if log:
                log.write(step, values)  # at once: a step that a tracker has is not sent again

            # ---- save
            if saving:
                if log:
                    log.upload()
                checkpoints.save(step, state)
                if stopping and not last:
                    raise Stopped(f"at step {step}")
            pending, since, examples = [], time.perf_counter(), 0
    return state, scored or evaluate(state)[0]


def due(step: int, interval: int, last: bool) -> bool:
    """Return True at every multiple of the interval, and at the end."""
    return last or (interval > 0 and step % interval == 0)


def _profiled(calls: Iterator[Any], folder: Path | None) -> Generator[Any, None, None]:
    """Yield the calls, and record what is done with those after the first, for TensorBoard and Perfetto."""
    if folder is not None:
        yield from islice(calls, 1)
        with staged(folder) as stage, jax.profiler.trace(stage, create_perfetto_trace=True):
            yield from islice(calls, PROFILED_CALLS)
        LOG.info("recorded in %s: tensorboard --logdir, or perfetto_trace.json.gz at ui.perfetto.dev", folder)
    yield from calls


def finite_means(pending: Sequence[Mapping[str, Any]], step: int, checkpoints: Checkpoints) -> dict[str, float]:
    """Average the metrics of the steps up to this one; the first that is not finite ends the run."""
    calls = jax.device_get(pending)
    fetched = {name: np.concatenate([np.atleast_1d(metrics[name]) for metrics in calls]) for name in calls[0]}
    watched = ("loss", "gradient_norm", "parameter_norm")
    bad = [(at, name) for name in watched for at in np.flatnonzero(~np.isfinite(fetched[name]))]
    if bad:
        at, name = min(bad, key=lambda found: found[0])
        first = step - len(fetched[name]) + 1
        saved = checkpoints.steps()
        good = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was saved"
        raise UserError(
            f"the {name.replace('_', ' ')} is {fetched[name][at]} at step {first + at} in {checkpoints.folder.parent}; "
            f"{good}; try a lower optim.learning_rate, or a warm-up, in another folder"
        )
    return {name: float(np.mean(values)) for name, values in fetched.items()}


def describe_result(run: Run, state: TrainState, scored: Score, folder: Path) -> dict[str, Any]:
    """Describe a finished run for `result.json`: accuracy, config and provenance."""
    rate = f"{run.experiment.task.counted}_per_second"
    rates = [line[rate] for line in read(folder) if rate in line]
    return {
        "accuracy": scored.accuracy,
        "loss": scored.loss,
        "examples": scored.examples,
        "counted": run.experiment.task.counted,
        "steps": int(state.step),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        rate: float(np.median(rates)) if rates else 0.0,
        "config": json.loads(run.config.to_json()),
        **provenance.describe(),
    }


def train_rounds(config: ConfigDict, folder: Path, execution: Execution = PLAIN) -> dict[str, Any]:
    """Train the run described by `config`; a method with rounds trains once per round.

    That trains to the step `rewind` in `folder/origin`, from there to the end in `folder/round0`, then from the same
    step with the pruned network's masks in `folder/round1` and so on; the last round is in `folder` itself. Step k sees
    the same examples in every round. Rerun to resume.
    """
    if not find(config.mask.name).in_rounds or (folder / "result.json").exists():
        return train(config, folder, execution)
    config, rounds = expand_percent(config), config.mask.rounds
    with run_folder.lock(folder, config):
        pass  # a folder of another config is not touched
    folders = [*(folder / f"round{number}" for number in range(rounds)), folder]
    with listening() as stops:
        train(config, folder / "origin", execution, until=config.mask.rewind)
        for number, own in enumerate(folders):
            if stops(0):
                raise Stopped(f"before round {number} of {rounds}")
            LOG.info("round %d of %d", number, rounds)
            before = folders[number - 1] if number else None
            ticket = partial(_ticket, config, folder / "origin", before, number)
            result = train(config, own, execution, start=ticket)
    return result


def _ticket(config: ConfigDict, origin: Path, before: Path | None, number: int) -> TrainState:
    """Make the state at the rewound step, under the masks of the round before."""
    run, start = load_trained(origin, average=False)
    if before is None:
        return start
    (_, trained), mask, kernels = load_trained(before, finished=True), config.mask, run.experiment.kernels
    removed = 1 - (1 - mask.rate) ** number
    mask_vars = draw_ticket(trained.params, trained.mask_vars, removed, mask.granularity, mask.scope, kernels=kernels)
    LOG.info("%.4g %% are removed, back to step %d", 100 * removed, start.step)
    params = run.experiment.transform.prune(start.params, mask_vars)
    # A training step donates its state: no buffer of it may be shared with the masks.
    return jax.tree.map(jnp.copy, start._replace(params=params, mask_vars=mask_vars))
