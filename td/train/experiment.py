"""From a config to the parts of a run, and back from a run folder to a trained network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from td import data, masks, models
from td.base import Params
from td.data import Dataset
from td.errors import UserError, check_at_least, check_choice, check_seed, check_share
from td.io.checkpoint import Checkpoints, check_same_network, describe
from td.io.run_folder import claim_data, load_config
from td.kernels import select_kernels
from td.masks import as_mask_vars
from td.prune import apply_mask, prune_mask
from td.train.durations import expand_percent, resolve, to_steps
from td.train.optimizer import DURATIONS, make_learning_rate, make_optimizer
from td.train.state import Experiment, TrainState, at_evaluation, averaged, init_state

GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")
"""Of random numbers: the same on every device and layout, or those of the device, faster on TPUs."""


class Run(NamedTuple):
    """A config made concrete."""

    config: ConfigDict  # what was made so
    experiment: Experiment  # model, method and optimiser
    dataset: Dataset  # what it learns from and is scored on
    key: Any  # the run's key; every other key is folded from it
    steps: int  # the run's length
    every: dict[str, int]  # steps between two lines of the log, two checkpoints, two evaluations


def build(
    config: ConfigDict, dataset: Dataset, mask_overrides: Mapping[str, Any] | None = None
) -> tuple[Run, TrainState]:
    """Make the parts that a config names and the state at step 0."""
    run = _make_run(config, dataset, mask_overrides or {})
    # Operation by operation, a small ResNet would compile a hundred programs.
    return run, _start(run, jax.jit(lambda key, batch: init_state(run.experiment, key, batch)))


def outline(
    config: ConfigDict, dataset: Dataset, mask_overrides: Mapping[str, Any] | None = None
) -> tuple[Run, TrainState]:
    """The same as `build`, with shapes in place of the arrays of the state: no number is drawn, nothing is compiled."""
    run = _make_run(config, dataset, mask_overrides or {})
    there = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shapes(key: Any, batch: Any) -> TrainState:
        state = jax.eval_shape(lambda key: init_state(run.experiment, key, batch), key)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), state)

    return run, _start(run, shapes)


def _make_run(config: ConfigDict, dataset: Dataset, mask_overrides: Mapping[str, Any]) -> Run:
    config = expand_percent(config)
    examples, batch_size = dataset.train.size, dataset.train.examples_per_step(config.data.batch_size)
    settings = config.to_dict()
    check_seed(config.seed)
    check_share("optim.label_smoothing", config.optim.label_smoothing)
    check_share("optim.average", config.optim.average)
    check_at_least("optim.l2", config.optim.l2)
    steps = to_steps(config.duration, examples, batch_size)
    if steps < 1:
        raise UserError(f"duration {config.duration!r} is less than one step of {batch_size:g} examples")
    every = resolve(settings["every"], settings["every"], examples, batch_size)
    mask, optim = in_steps(config, dataset)
    experiment = Experiment(
        model=models.build(settings["model"], dataset.num_classes),
        transform=masks.build(mask | dict(mask_overrides), kernels=config.kernels),
        optimizer=make_optimizer(optim, steps),
        learning_rate=make_learning_rate(optim, steps),
        label_smoothing=config.optim.label_smoothing,
        average=config.optim.average,
        l2=config.optim.l2,
        kernels=config.kernels,
        task=dataset.task,
    )
    return Run(config, experiment, dataset, _run_key(config), steps, every)


def _run_key(config: ConfigDict) -> Any:
    check_choice("rng", config.rng, GENERATORS)
    return jax.random.key(config.seed, impl=config.rng)


def in_steps(config: ConfigDict, dataset: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config's sections `mask` and `optim`, durations in steps and 0 `examples` those of an epoch."""
    examples, batch_size = dataset.train.size, dataset.train.examples_per_step(config.data.batch_size)
    mask = resolve(config.mask.to_dict(), masks.find(config.mask.name).durations, examples, batch_size)
    if mask.get("examples") == 0:
        mask["examples"] = examples
    return mask, resolve(config.optim.to_dict(), DURATIONS, examples, batch_size)


def _start(run: Run, start: Callable[[Any, Any], TrainState]) -> TrainState:
    """The state at step 0, or its shapes; what cannot be built, or has no such kernels, is refused in one line."""
    try:
        state = start(run.key, run.dataset.train.blank_batch(2))
    except UserError:
        raise
    except Exception as error:  # whatever Flax makes of a width of 0 or a dtype that does not exist
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the model cannot be built from {run.config.model.to_dict()}: {reason}") from error
    select_kernels(state.params, run.config.kernels)
    return state


def load_trained(
    workdir: Path, mask_overrides: Mapping[str, Any] | None = None, *, average: bool = True, finished: bool = False
) -> tuple[Run, TrainState]:
    """Read a run folder: its config and the newest whole checkpoint, averaged where the run is scored so.

    With `finished`, one that is not of the run's end is refused: the last may be damaged, or the run not done.
    """
    config = load_config(workdir)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"no checkpoint in {workdir} yet: train first with td-train (scripts/train.py)")
    try:
        run, shapes = outline(config, data.load(config.data.to_dict()), mask_overrides)
    except (AttributeError, KeyError) as error:
        if any(":" in config[section].get("name", "") for section in ("model", "data", "mask")):
            raise  # it may be of what is not ours
        reason = str(error).strip("'\"").splitlines()[0]
        raise UserError(
            f"{workdir} was trained by another version of td, its config.json lacks a setting: {reason}"
        ) from error
    claim_data(workdir, run.dataset.identity, write=False)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(shapes)
    if restored is None:
        raise UserError(f"no checkpoint in {workdir} yet: train first with td-train (scripts/train.py)")
    if finished and restored[0] < run.steps:
        raise UserError(
            f"the newest checkpoint in {workdir} is of step {restored[0]} of {run.steps}: train it to the end with the "
            "same command as before, without its result.json if there is one"
        )
    return run, averaged(restored[1]) if average else restored[1]


def own_mask(run: Run, state: TrainState, rate: float, granularity: str) -> tuple[Params, Params]:
    """The parameters at evaluation and their keep-masks at a rate, ranked as the method does, in the scope it had."""
    shown, scores = at_evaluation(run.experiment, state), run.experiment.transform.scores(state.params, state.mask_vars)
    scope, kernels = run.config.mask.get("scope", "unit"), run.experiment.kernels
    return shown, prune_mask(shown, rate, granularity, scope=scope, kernels=kernels, scores=scores)


def pruned_start(config: ConfigDict, state: TrainState) -> TrainState:
    """Make the state at step 0 of a run that fine-tunes: another run's parameters, pruned, and the masks they leave."""
    run, trained = load_trained(Path(config.start.workdir), finished=True)
    check_same_network(describe(trained.params), describe(state.params), config.start.workdir)
    shown, mask = own_mask(run, trained, config.start.prune_rate, config.mask.granularity)
    pruned = apply_mask(shown, mask)
    # What the method itself has removed stays removed, where that is more than the rate asks for.
    left = jax.tree.map(lambda leaf: leaf != 0, pruned)
    mask_vars = as_mask_vars(left, pruned, config.mask.granularity, kernels=run.experiment.kernels)
    average = jax.tree.map(jnp.copy, (pruned, trained.batch_stats, mask_vars.gates)) if state.average else ()
    return state._replace(params=pruned, mask_vars=mask_vars, batch_stats=trained.batch_stats, average=average)
