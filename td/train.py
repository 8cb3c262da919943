"""The training loop: resumes where a killed run stopped, bit for bit."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from td import data, hosts, provenance, workdir
from td.base import Params
from td.checkpoint import Checkpoints
from td.durations import to_steps
from td.errors import UserError
from td.evaluate import EvalStep, Score, score
from td.execution import PLAIN, Execution, call_sizes, make_mesh, replicated, spread, state_shardings
from td.experiment import Run, build
from td.feed import make_feed
from td.metrics import MetricLog, read
from td.profile import Profile
from td.progress import progress
from td.prune import sparsity
from td.step import Metrics, TrainState, averaged, make_eval_step, make_train_step
from td.stop import Stopped, sigterm
from td.telemetry import make_telemetry

LOG = logging.getLogger(__name__)

EVAL_BATCH = 500

HostMetrics = dict[str, np.ndarray]


def train(
    config: ConfigDict,
    folder: Path,
    execution: Execution = PLAIN,
    *,
    start: Callable[[], TrainState] | None = None,
    until: str = "",
) -> dict[str, Any]:
    """Train what a config describes, or go on from the newest checkpoint, or return the finished run's result.

    Args:
      config: the experiment.
      folder: the run's folder: `config.json`, `metrics.jsonl`, `events/`, `checkpoints/`, `result.json`.
      execution: on which devices, and in which pieces.
      start: gives the state that a new run starts from; None: step 0. Its `step` says how much is done already.
      until: a duration after which to stop before the end, with a checkpoint but no `result.json`.

    Returns:
      What `result.json` holds, or would hold.

    Raises:
      UserError: a bad config, a folder in use or of another config, no data, a loss that is not finite.
      Stopped: SIGTERM arrived; a checkpoint was written.
    """
    run = build(config, data.load(config.data.to_dict()))
    source, batch_size = run.dataset.train, config.data.batch_size
    end = to_steps(until, source.size, source.examples_per_step(batch_size)) if until else run.steps
    if end > run.steps:
        raise UserError(f"step {end} ({until}) is beyond the end of the run, {run.steps} steps")
    mesh = make_mesh(execution, source.row_counts(batch_size))
    shardings = state_shardings(run.state, mesh, execution.sharded)
    with workdir.held(folder, config, run.dataset.identity):
        if (folder / "result.json").exists():
            LOG.info("%s is finished", folder)
            return workdir.read_json(folder / "result.json")
        with Checkpoints(folder / "checkpoints") as checkpoints:
            state = jax.device_put(run.state, shardings)
            restored = checkpoints.restore(state)
            if restored is not None:
                state = restored[1]
                LOG.info("resuming from checkpoint %d in %s", restored[0], folder)
            elif start is not None:
                state = jax.device_put(jax.device_get(start()), shardings)
            run = run._replace(state=state)
            state, final = _loop(config, run, end, folder, checkpoints, execution, mesh)
            if not checkpoints.steps():  # there was no step to do
                checkpoints.save(end, state)
        result = describe_result(config, run, state, final, hosts.own_folder(folder))
        if end == run.steps:
            hosts.on_first(lambda: workdir.write_json(folder / "result.json", result))
        return result


def _loop(
    config: ConfigDict,
    run: Run,
    end: int,
    folder: Path,
    checkpoints: Checkpoints,
    execution: Execution,
    mesh: Mesh,
) -> tuple[TrainState, Score]:
    task, every = run.experiment.task, run.every
    rate = f"{task.unit}_per_second"
    feed = make_feed(run.dataset, config.data.batch_size, config.seed, execution, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, run.state), replicated(mesh)
    train_steps = {
        steps: make_train_step(run.experiment, shardings, feed.fetch, steps) for steps in {1, execution.steps_per_call}
    }
    evaluate = make_evaluation(run, mesh)
    telemetry = make_telemetry(run.experiment, config.mask.to_dict(), config.granularity)
    state, step = run.state, int(run.state.step)
    sizes = call_sizes(
        step,
        end,
        execution.steps_per_call,
        [every["telemetry"]],
        [every[name] for name in ("log", "evaluation", "checkpoint")],
    )
    pending: list[Metrics] = []
    scored, first = None, hosts.is_first()
    with (
        MetricLog(hosts.own_folder(folder), step) as log,
        sigterm() as stops,
        progress(total=end, initial=step, desc="train", unit="step", disable=not first) as bar,
        Profile(folder / "profile" if execution.profile and first else None) as profile,
        closing(feed.pieces(step, sizes)) as pieces,
    ):
        since, seen = time.perf_counter(), 0
        for piece in pieces:
            seen += piece.examples
            step += piece.steps
            last, stopping = step == end, stops(step)
            watching = every["telemetry"] > 0 and due(step, every["telemetry"], last)
            before = telemetry.targets(state) if watching else {}
            state, metrics = train_steps[piece.steps](state, piece.batch, run.key, feed.data)
            pending.append(metrics)
            profile.after(piece.steps, state)
            bar.update(piece.steps)
            evaluating = due(step, every["evaluation"], last)
            saving = due(step, every["checkpoint"], last) or stopping
            if not (evaluating or saving or watching or due(step, every["log"], last)):
                continue

            # ---- log, also before every evaluation and save: rates are of steps alone, and no bad state is saved
            values = _means(_fetch_finite(pending, step, checkpoints))
            values[rate] = seen / (time.perf_counter() - since)
            log.write(step, values)
            shown = {"loss": f"{values['loss']:.3f}", "accuracy": f"{values['accuracy']:.3f}"}
            bar.set_postfix({**shown, f"{task.unit}/s": f"{values[rate]:.0f}"})

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
                    raise Stopped(step)
            pending, since, seen = [], time.perf_counter(), 0
    return state, scored or evaluate(state)[0]


def due(step: int, interval: int, last: bool) -> bool:
    """Whether something that happens every so many steps happens now.

    Args:
      step: finished steps.
      interval: steps between; 0 = only at the end.
      last: this is the last step.

    Returns:
      True at every multiple and at the end.

    Example:
      >>> [step for step in range(1, 8) if due(step, 3, step == 7)]
      [3, 6, 7]
    """
    return last or (interval > 0 and step % interval == 0)


def make_evaluation(
    run: Run, mesh: Mesh | None = None, eval_step: EvalStep | None = None
) -> Callable[[TrainState], tuple[Score, float]]:
    """Build the scoring of the network as the method shows it at evaluation.

    Args:
      run: for model, method, kernels and data.
      mesh: the devices that share the work; None: those that hold the parameters each do all of it.
      eval_step: of the same model, where it is compiled already.

    Returns:
      `state -> (score, share of zeros in the prunable kernels)`.
    """
    transform, split = run.experiment.transform, run.dataset.evaluation
    step_of = eval_step or make_eval_step(run.experiment.model, run.experiment.task)
    rows = EVAL_BATCH if mesh is None else -(-EVAL_BATCH // mesh.size) * mesh.size

    def shared(params: Params, batch_stats: Any, batch: Any) -> dict[str, Array]:
        return step_of(params, batch_stats, batch if mesh is None else spread(batch, mesh))

    @jax.jit
    def show(state: TrainState) -> tuple[Params, Array]:
        state = averaged(state)
        shown, _ = transform.apply(state.params, state.mask_vars, key=None, step=state.step)
        return shown, sparsity(shown, run.experiment.kernels).total

    def evaluate(state: TrainState) -> tuple[Score, float]:
        shown, zeros = show(state)
        scored = score(shared, lambda _: shown, state.batch_stats, split, rows)
        return scored, float(zeros)

    return evaluate


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
            "try a lower optim.learning_rate, or a warm-up, in another --workdir"
        )
    return fetched


def _means(fetched: HostMetrics) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in fetched.items()}


def describe_result(config: ConfigDict, run: Run, state: TrainState, final: Score, folder: Path) -> dict[str, Any]:
    """Say what a finished run has reached.

    Args:
      config: its config.
      run: its parts.
      state: at its end.
      final: its last score.
      folder: of its log, for the speed.

    Returns:
      What `result.json` holds.
    """
    rate = f"{run.experiment.task.unit}_per_second"
    rates = [line[rate] for line in read(folder) if rate in line]
    return {
        "accuracy": final.accuracy,
        "loss": final.loss,
        "examples": final.examples,
        "steps": int(state.step),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        rate: float(np.median(rates)) if rates else 0.0,
        "config": json.loads(config.to_json()),
        **provenance.describe(),
    }
