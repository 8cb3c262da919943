"""From a config to the parts of a run, and back from a run folder to a trained network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from td import data, masks, models, optim
from td.checkpoint import Checkpoints
from td.data import Dataset
from td.durations import resolve, to_steps
from td.errors import UserError, check_at_least, check_share
from td.kernels import select_kernels
from td.step import Experiment, TrainState, averaged, init_state
from td.workdir import claim_data, load_config


class Run(NamedTuple):
    """A config made concrete.

    Attributes:
      experiment: model, method and optimiser.
      dataset: what it learns from and is scored on.
      state: at step 0, or as restored.
      key: the run's key; every other key is folded from it.
      steps: the run's length.
      every: steps between two lines of the log, two checkpoints, two evaluations.
    """

    experiment: Experiment
    dataset: Dataset
    state: TrainState
    key: Any
    steps: int
    every: dict[str, int]


def build(config: ConfigDict, dataset: Dataset, mask_overrides: Mapping[str, Any] | None = None) -> Run:
    """Make the parts that a config names and the state at step 0.

    Args:
      config: the run's config.
      dataset: its data.
      mask_overrides: settings of the method to use instead of the config's.

    Returns:
      The `Run`.

    Raises:
      UserError: an unknown name or a value out of range.
    """
    return _build(config, dataset, mask_overrides or {}, init_state)


def outline(config: ConfigDict, dataset: Dataset, mask_overrides: Mapping[str, Any] | None = None) -> Run:
    """The same as `build`, with shapes in place of the arrays of the state: no number is drawn, nothing is compiled.

    Args:
      config: the run's config.
      dataset: its data.
      mask_overrides: settings of the method to use instead of the config's.

    Returns:
      The `Run`; its `state` consists of `jax.ShapeDtypeStruct`, for the first device.

    Raises:
      UserError: an unknown name or a value out of range.
    """
    there = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shapes(experiment: Experiment, key: Any, batch: Any) -> Any:
        found = jax.eval_shape(lambda key: init_state(experiment, key, batch), key)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), found)

    return _build(config, dataset, mask_overrides or {}, shapes)


def _build(
    config: ConfigDict,
    dataset: Dataset,
    mask_overrides: Mapping[str, Any],
    start: Callable[[Experiment, Any, Any], TrainState],
) -> Run:
    examples, batch_size = dataset.train.size, dataset.train.examples_per_step(config.data.batch_size)
    settings = config.to_dict()
    check_at_least("seed", config.seed)
    steps = to_steps(config.duration, examples, batch_size)
    if steps < 1:
        raise UserError(f"duration {config.duration!r} is less than one step of {batch_size:g} examples")
    mask_settings = resolve(settings["mask"], examples, batch_size) | dict(mask_overrides)
    optim_settings = resolve(settings["optim"], examples, batch_size)
    every = resolve(settings["every"], examples, batch_size, names=settings["every"])
    check_share("optim.label_smoothing", config.optim.label_smoothing)
    check_share("optim.average", config.optim.average)
    experiment = compose(config, dataset, mask_settings, optim_settings, steps)
    key = jax.random.key(config.seed)
    try:
        state = start(experiment, key, dataset.train.blank_batch(2))
    except UserError:
        raise
    except Exception as error:  # whatever Flax makes of a width of 0 or a dtype that does not exist
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the model cannot be built from {settings['model']}: {reason}") from error
    select_kernels(state.params, config.kernels)
    return Run(experiment, dataset, state, key, steps, every)


def compose(
    config: ConfigDict, dataset: Dataset, mask: Mapping[str, Any], optimizer: Mapping[str, Any], steps: int
) -> Experiment:
    """Put the parts together that a config names.

    Args:
      config: for everything but method and optimiser.
      dataset: for its classes and its task.
      mask: the method's settings, durations in steps; numbers may be traced.
      optimizer: likewise.
      steps: the run's length.

    Returns:
      The `Experiment`.

    Raises:
      UserError: an unknown name or a value out of range.
    """
    return Experiment(
        model=models.build(config.model.to_dict(), dataset.num_classes),
        transform=masks.build(mask, kernels=config.kernels),
        optimizer=optim.build(optimizer, steps),
        learning_rate=optim.learning_rate(optimizer, steps),
        label_smoothing=config.optim.label_smoothing,
        average=config.optim.average,
        l2=config.optim.l2,
        kernels=config.kernels,
        task=dataset.task,
    )


def load_trained(
    workdir: Path, mask_overrides: Mapping[str, Any] | None = None, *, average: bool = True
) -> tuple[ConfigDict, Run]:
    """Read a run folder: its config and the newest whole checkpoint.

    Args:
      workdir: the run's folder.
      mask_overrides: settings of the method to use instead of the config's.
      average: give the moving average of the parameters where there is one, as it is scored; else as trained.

    Returns:
      The config, and the `Run` with the restored state.

    Raises:
      UserError: there is no run, no checkpoint yet, or it cannot be read.
    """
    config = load_config(workdir)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"no checkpoint in {workdir} yet: train first with scripts/train.py")
    try:
        run = outline(config, data.load(config.data.to_dict()), mask_overrides)
    except (AttributeError, KeyError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise UserError(
            f"{workdir} was trained by another version of td, its config.json lacks a setting: {reason}"
        ) from error
    claim_data(workdir, run.dataset.identity, write=False)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(run.state)
    if restored is None:
        raise UserError(f"no checkpoint in {workdir} yet: train first with scripts/train.py")
    return config, run._replace(state=averaged(restored[1]) if average else restored[1])
