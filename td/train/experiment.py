"""From a config to the parts of a run, and back from a run folder to a trained network."""

import json
import logging
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from td import data, masks, models
from td.base import Params
from td.data import Dataset
from td.errors import UserError, check_choice, check_seed
from td.io import network_file
from td.io.checkpoint import Checkpoints
from td.io.files import Path
from td.io.run_folder import NETWORK, check_data, load_config
from td.kernels import Patterns, select_kernels
from td.prune import prune_mask
from td.structure import Structure, trace
from td.train.config import TRACED, check_settings, expand_percent, resolve, to_steps
from td.train.optimizer import DURATIONS, make_learning_rate, make_optimizer
from td.train.state import Experiment, TrainState, averaged, eval_params, init_state

LOG = logging.getLogger(__name__)

GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")
"""Random number generators: the same on every device and layout, or the device's own, faster on TPUs."""


class Run(NamedTuple):
    """A config made concrete."""

    config: ConfigDict  # what was made so
    experiment: Experiment  # model, method and optimiser
    dataset: Dataset  # what it learns from and is scored on
    key: Any  # the run's key; every other key is folded from it
    steps: int  # the run's length
    every: dict[str, int]  # steps between two lines of the log, two checkpoints, two evaluations


def build(
    config: ConfigDict, dataset: Dataset, mask_overrides: Mapping[str, Any] | None = None, *, shapes_only: bool = False
) -> tuple[Run, TrainState]:
    """Make the parts that a config names, and the state at step 0 or, with nothing drawn or compiled, its shapes."""
    config = expand_percent(config)
    check_seed(config.seed)
    check_choice("rng", config.rng, GENERATORS)
    settings, batch_size = config.to_dict(), dataset.train.examples_per_step(config.data.batch_size)
    steps = to_steps(config.duration, dataset.train.size, batch_size)
    if steps < 1:
        raise UserError(f"duration {config.duration!r} is less than one step of {batch_size:g} examples")
    mask, optim = in_steps(config, dataset)
    inputs = jax.eval_shape(lambda: dataset.task.inputs(dataset.train.blank_batch(2), None))
    kernels = kernels_of(config, dataset.num_classes, inputs)
    experiment = Experiment(
        model=models.build(settings["model"], dataset.num_classes),
        transform=masks.build(mask | dict(mask_overrides or {}), kernels=kernels),
        optimizer=make_optimizer(optim, steps),
        learning_rate=make_learning_rate(optim, steps),
        label_smoothing=config.optim.label_smoothing,
        ema_decay=config.optim.ema_decay,
        l2=config.optim.l2,
        kernels=kernels,
        task=dataset.task,
    )
    every = resolve(settings["every"], settings["every"], dataset.train.size, batch_size)
    run = Run(config, experiment, dataset, jax.random.key(config.seed, impl=config.rng), steps, every)
    init, batch = partial(init_state, experiment), dataset.train.blank_batch(2)
    if shapes_only:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.eval_shape(init, run.key, batch)
        return run, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    state = jax.jit(init)(run.key, batch)  # operation by operation, a small ResNet would compile a hundred programs
    select_kernels(state.params, kernels)  # raises UserError where the patterns match none
    return run, state


def check_schedules(run: Run) -> None:
    """Warn of a run that ends before its schedules do."""
    mask, optim = in_steps(run.config, run.dataset)
    name = run.config.mask.name
    ends = {
        "the first update (optim.accumulate)": optim["accumulate"],
        "optim.warmup": optim["warmup"] - optim["begin"],
        f"the schedule of mask={name}": masks.find(name).final_step(mask),
    }
    for schedule, end in ends.items():
        if end > run.steps:
            LOG.warning("%s ends at step %d, after the run, which has %d: shorten it", schedule, end, run.steps)


def kernels_of(config: ConfigDict, num_classes: int, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Patterns:
    """The kernels of a network, as a config chooses them."""
    if config.kernels != TRACED:
        return config.kernels
    return _trace(json.dumps(config.model.to_dict(), sort_keys=True), num_classes, inputs)


@cache
def _trace(settings: str, num_classes: int, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Structure:
    model = models.build(json.loads(settings), num_classes)
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)

    def apply(params: Params, *inputs: Any) -> Any:
        statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables.get("batch_stats", {}))
        return model.apply({"params": params, "batch_stats": statistics}, *inputs)

    return trace(apply, variables["params"], *inputs)


def in_steps(config: ConfigDict, dataset: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert the config's sections `mask` and `optim`: durations to steps, 0 `examples` to those of an epoch."""
    examples, batch_size = dataset.train.size, dataset.train.examples_per_step(config.data.batch_size)
    mask = resolve(config.mask.to_dict(), masks.find(config.mask.name).durations, examples, batch_size)
    if mask.get("examples") == 0:
        mask["examples"] = examples
    return mask, resolve(config.optim.to_dict(), DURATIONS, examples, batch_size)


def load_trained(
    workdir: Path, mask_overrides: Mapping[str, Any] | None = None, *, average: bool = True, finished: bool = False
) -> tuple[Run, TrainState]:
    """Read a run's config and newest intact checkpoint, of its end if `finished`, averaged where it is scored so."""
    config, folder, restored = load_config(workdir), workdir / "checkpoints", None
    check_settings(config)  # of a run of another version of td
    alone = (workdir / NETWORK).is_file() and not folder.is_dir()  # without an optimiser
    if alone or folder.is_dir():
        run, shapes = build(config, data.load(config.data.to_dict()), mask_overrides, shapes_only=True)
        check_data(workdir, run.dataset.identity)
        if alone:
            state = network_file.read_network(workdir, shapes._replace(opt_state=(), ema=()))
            restored = int(state.step), state
        else:
            with Checkpoints(folder, read_only=True) as checkpoints:
                restored = checkpoints.restore(shapes)
    if restored is None:
        raise UserError(f"no checkpoint in {workdir} yet: train first with td-train (scripts/train.py)")
    step, state = restored
    if finished and step < run.steps:
        at = f"the newest checkpoint in {workdir} is of step {step} of {run.steps}"
        raise UserError(f"{at}: delete its result.json, if there is one, and rerun its command")
    return run, averaged(state) if average else state


def own_mask(run: Run, state: TrainState, rate: float, granularity: str) -> tuple[Params, Params]:
    """Return the parameters at evaluation and keep-masks at a rate, ranked as the method does, in the scope it had."""
    params, scores = eval_params(run.experiment, state), run.experiment.transform.scores(state.params, state.mask_vars)
    scope, kernels = run.config.mask.get("scope", "unit"), run.experiment.kernels
    return params, prune_mask(params, rate, granularity, scope=scope, kernels=kernels, scores=scores)
