"""Constant parts of a run, and the state that every step replaces."""

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
    """Complete state of a run between two steps."""

    step: Array  # int32, finished steps
    params: Params  # the stored parameters, never masked in place
    mask_vars: MaskVars  # the method's gates and stats
    batch_stats: Any  # running statistics of the model's norms, {} if it has none
    opt_state: Any  # the optimiser's state, over `(params, gates)`
    ema: Any = ()  # moving averages of `(params, batch_stats, gates)`, () without them


class Experiment(NamedTuple):
    """Parts of a run, as its config names them."""

    model: Any  # a `flax.linen` module that knows nothing of the rest
    transform: MaskTransform  # the method
    optimizer: optax.GradientTransformation  # over `(params, gates)`
    learning_rate: Callable[[Array], Array | float]  # for the log
    label_smoothing: float  # part of the target that is spread evenly over all classes, in training
    ema_decay: float  # of the moving averages, 0 for none
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
    state = TrainState(jnp.zeros((), jnp.int32), params, mask_vars, variables.get("batch_stats", {}), opt_state)
    return start_ema(state) if experiment.ema_decay else state


def start_ema(state: TrainState) -> TrainState:
    """Start the moving averages at the present values."""
    # Copies: a training step donates its state, and no buffer of it may appear twice.
    return state._replace(ema=jax.tree.map(jnp.copy, (state.params, state.batch_stats, state.mask_vars.gates)))


def averaged(state: TrainState) -> TrainState:
    """Replace parameters, statistics and gates by their moving averages, where there are any: the state to score."""
    if not state.ema:
        return state
    params, batch_stats, gates = state.ema
    return state._replace(params=params, batch_stats=batch_stats, mask_vars=state.mask_vars._replace(gates=gates))


def eval_params(experiment: Experiment, state: TrainState) -> Params:
    """Apply the method as at evaluation."""
    return experiment.transform.apply(state.params, state.mask_vars, key=None, step=state.step)[0]


def predict(experiment: Experiment, params: Params, batch_stats: Any, batch: Any) -> Array:
    """Compute the logits of a batch, with fixed parameters and running statistics."""
    variables = {"params": params, "batch_stats": batch_stats}
    return experiment.model.apply(variables, *experiment.task.inputs(batch, None))
