"""What a run consists of: the parts that stay, and the state that every step replaces."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from td.base import MaskTransform, MaskVars, Params, RandomKey
from td.data import Task
from td.kernels import Patterns


class TrainState(NamedTuple):
    """All that a run is, between two steps."""

    step: Array  # int32, finished steps
    params: Params  # the stored parameters, never masked in place
    mask_vars: MaskVars  # the method's gates and stats
    batch_stats: Any  # running statistics of the model's norms, {} if it has none
    opt_state: Any  # the optimiser's state, over `(params, gates)`
    average: Any = ()  # the moving averages of `params`, `batch_stats` and the gates, () without them


class Experiment(NamedTuple):
    """What stays fixed during a run: the parts that a config names, put together."""

    model: Any  # a `flax.linen` module that knows nothing of the rest
    transform: MaskTransform  # the method
    optimizer: optax.GradientTransformation  # over `(params, gates)`
    learning_rate: Callable[[Array], Array | float]  # for the log
    label_smoothing: float  # the share of the target spread evenly over all classes, in training
    average: float  # decay of the moving average of the parameters, 0 for none
    l2: float  # weight of the penalty `l2 * sum(w^2) / 2` over all kernels
    kernels: Patterns  # which kernels the method and the prune curve see
    task: Task  # what the model is fed with and scored by


def init_state(experiment: Experiment, key: RandomKey, batch: Any) -> TrainState:
    """Initialise model, method and optimiser; the batch is for its shape only."""
    # 0, 1 and 4 are the keys of the steps.
    model_key, mask_key = jax.random.fold_in(key, 2), jax.random.fold_in(key, 3)
    variables = experiment.model.init(model_key, *experiment.task.inputs(batch, None))
    params = variables["params"]
    mask_vars = experiment.transform.init(mask_key, params)
    params = experiment.transform.prune(params, mask_vars)
    opt_state = experiment.optimizer.init((params, mask_vars.gates))
    batch_stats = variables.get("batch_stats", {})
    # A copy: a training step donates its state, and no buffer of it may appear twice.
    average = jax.tree.map(jnp.copy, (params, batch_stats, mask_vars.gates)) if experiment.average else ()
    return TrainState(jnp.zeros((), jnp.int32), params, mask_vars, batch_stats, opt_state, average)


def averaged(state: TrainState) -> TrainState:
    """The state whose parameters, statistics and gates are their moving averages, where there are such: what is scored.

    Averaged parameters want averaged statistics and gates: those of the last step belong to a network somewhere else.
    """
    if not state.average:
        return state
    params, batch_stats, gates = state.average
    return state._replace(params=params, batch_stats=batch_stats, mask_vars=state.mask_vars._replace(gates=gates))


def at_evaluation(experiment: Experiment, state: TrainState) -> Params:
    """The parameters as the method shows them at evaluation."""
    return experiment.transform.apply(state.params, state.mask_vars, key=None, step=state.step)[0]


def predict(experiment: Experiment, params: Params, batch_stats: Any, batch: Any) -> Array:
    """The logits of a batch, with fixed parameters and running statistics."""
    variables = {"params": params, "batch_stats": batch_stats}
    return experiment.model.apply(variables, *experiment.task.inputs(batch, None))
