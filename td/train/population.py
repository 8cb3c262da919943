"""Many small networks in one program, for accelerators that one of them leaves idle."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array
from ml_collections import ConfigDict

from td import data, masks
from td.errors import UserError
from td.io import run_folder
from td.io.checkpoint import Checkpoints
from td.io.files import Path, write_json
from td.io.interrupt import Stopped, listening
from td.io.log import MetricLog
from td.io.progress import progress
from td.train.config import check_config
from td.train.devices import AXIS, PLAIN, Execution, make_mesh
from td.train.experiment import Run, build, check_schedules, in_steps
from td.train.loop import describe_result, due, finite_means
from td.train.score import Score, make_evaluation
from td.train.state import TrainState
from td.train.step import Metrics, make_eval_step, plain_train_step

VARIED = ("seed", "optim.learning_rate", "mask.drop_rate", "mask.target_proportion")
"""Settings in which the networks of a population may differ: numbers that the compiled step takes as arguments."""


class Member(NamedTuple):
    """One network of a population, which is an ordinary run in an ordinary run folder, and its state at step 0."""

    folder: Path
    run: Run
    state: TrainState


def train_population(configs: Mapping[Path, ConfigDict], execution: Execution = PLAIN) -> None:
    """Train networks whose configs differ in `VARIED` numbers only, all in one program, each in its own run folder.

    Rerun to resume all from their last common step. There is no telemetry, and no evaluation before the end.
    """
    config = next(iter(configs.values()))
    if masks.find(config.mask.name).in_rounds or config.start.workdir:
        raise UserError("a population starts at step 0 and trains once: train lotteries and fine-tune networks alone")
    if config.rng != "threefry2x32":
        raise UserError(f"rng={config.rng!r} draws the same for all networks of a program: give rng='threefry2x32'")
    dataset = data.load(config.data.to_dict())
    members = []
    for folder, own in configs.items():
        check_config(own)
        run, state = build(own, dataset)
        check_schedules(run)
        members.append(Member(folder, run, state))
    if len(dataset.train.row_counts(config.data.batch_size)) > 1:
        raise UserError("a population shares batches of one shape, and these have several: train the networks alone")
    if execution.devices is None:  # as many as these can be spread over evenly
        devices = jax.devices()
        even = [devices[:n] for n in range(1, len(devices) + 1) if len(members) % n == 0][-1]
        execution = execution._replace(devices=even)
    mesh = make_mesh(execution, [len(members)], "the number of networks")
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(run_folder.lock(member.folder, member.run.config, dataset.identity))
        saved = [stack.enter_context(Checkpoints(member.folder / "checkpoints")) for member in members]
        states = _restored(members, saved)
        for member in members:
            run_folder.record(member.folder, member.run.config, dataset.identity)
        scored = _train(members, states, saved, NamedSharding(mesh, PartitionSpec(AXIS)), execution.track)
        for member, state, score in zip(members, *scored, strict=True):
            write_json(member.folder / "result.json", describe_result(member.run, state, score, member.folder))


def varied_step(members: Sequence[Member]) -> tuple[Callable[..., tuple[TrainState, Metrics]], dict[str, Array]]:
    """Build the step of one network, `(state, batch, key, its numbers) -> (state, metrics)`, and the numbers of all."""
    run = members[0].run
    mask, optim = in_steps(run.config, run.dataset)
    each = [run_folder.flatten(member.run.config.to_dict()) for member in members]
    names = [name for name in VARIED if name != "seed" and len({settings.get(name) for settings in each}) > 1]
    numbers = {name: jnp.array([settings[name] for settings in each], jnp.float32) for name in names}

    def one(state: TrainState, batch: Any, key: Array, own: dict[str, Array]) -> tuple[TrainState, Metrics]:
        rates = {name.removeprefix("mask."): value for name, value in own.items() if name.startswith("mask.")}
        factor = own.get("optim.learning_rate", jnp.float32(optim["learning_rate"])) / optim["learning_rate"]
        experiment = run.experiment._replace(
            transform=masks.build(mask | rates, kernels=run.experiment.kernels),
            optimizer=_scaled(run.experiment.optimizer, factor),
            learning_rate=lambda step: factor * run.experiment.learning_rate(step),
        )
        return plain_train_step(experiment)(state, batch, key)

    return one, numbers


def _scaled(optimizer: optax.GradientTransformation, factor: Array) -> optax.GradientTransformation:
    """Scale the learning rate and keep the state: every optimiser here has updates in proportion to it."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients, state, params)
        return optax.tree.scale(factor, updates), state

    return optax.GradientTransformation(optimizer.init, update)


def make_population_step(members: Sequence[Member], sharding: NamedSharding) -> Any:
    """Build the jitted `(states, batches) -> (states, metrics)`, everything with the network as first axis."""
    one, numbers = varied_step(members)
    step = jax.jit(jax.vmap(one), donate_argnums=0, out_shardings=sharding)
    keys, numbers = jax.device_put((jnp.stack([member.run.key for member in members]), numbers), sharding)
    return lambda states, batches: step(states, batches, keys, numbers)


def _restored(members: Sequence[Member], saved: Sequence[Checkpoints]) -> list[TrainState]:
    """Restore the newest step of which all have an intact checkpoint; a kill may come between two networks' saves."""
    step, steps = None, {0, 1}
    while len(steps) > 1:
        pairs = zip(members, saved, strict=True)
        found = [checkpoints.restore(member.state, at=step) or (0, member.state) for member, checkpoints in pairs]
        steps = {at for at, _ in found}
        step = min(steps)
    for checkpoints in saved:
        checkpoints.forget_after(min(steps))
    return [state for _, state in found]


def _train(
    members: Sequence[Member],
    alone: list[TrainState],
    saved: Sequence[Checkpoints],
    sharding: NamedSharding,
    names: str,
) -> tuple[list[TrainState], list[Score]]:
    run, seeds, first = members[0].run, [member.run.config.seed for member in members], int(alone[0].step)
    task, size = run.experiment.task, run.config.data.batch_size
    states = jax.device_put(jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), sharding)
    train_step, pending, scored = make_population_step(members, sharding), [], []
    eval_step = make_eval_step(run.experiment)
    evaluate = [make_evaluation(member.run, None, eval_step) for member in members]
    with ExitStack() as stack:
        stops = stack.enter_context(listening())
        logs = [stack.enter_context(MetricLog(each.folder, first, each.run.config, names)) for each in members]
        sources = {
            seed: stack.enter_context(closing(run.dataset.train.train_batches(size, seed, first))) for seed in seeds
        }
        since, examples = time.perf_counter(), 0
        for step in progress(range(first + 1, run.steps + 1), desc="train", unit="step"):
            batches = {seed: next(source) for seed, source in sources.items()}
            examples += task.count(batches[seeds[0]])
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(batches[seed] for seed in seeds))
            states, metrics = train_step(states, jax.device_put(stacked, sharding))
            pending.append(metrics)
            last, stopping = step == run.steps, stops(step)
            saving = due(step, run.every["checkpoint"], last) or stopping
            if saving or due(step, run.every["log"], last):
                rate = examples / (time.perf_counter() - since)  # of one network, all of them running
                fetched, host = jax.device_get((pending, states if saving else ()))
                alone = [jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), host) for i in range(len(members))]
                for i, (log, checkpoints) in enumerate(zip(logs, saved, strict=True)):
                    values = finite_means(jax.tree.map(lambda leaf, i=i: leaf[i], fetched), step, checkpoints)
                    values |= {f"{task.counted}_per_second": rate, "progress": step / run.steps}
                    if last:
                        score, zeros = evaluate[i](alone[i])
                        scored.append(score)
                        values |= score.logged(zeros)
                    log.write(step, values)
                    if saving:
                        log.upload()
                        checkpoints.save(step, alone[i])
                if stopping and not last:
                    raise Stopped(f"at step {step}")
                pending, since, examples = [], time.perf_counter(), 0
    return alone, scored or [each(state)[0] for each, state in zip(evaluate, alone, strict=True)]
