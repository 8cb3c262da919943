"""One training step and one evaluation step: pure functions of state, batch and key."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from td.base import MaskTransform, MaskVars, Params, RandomKey
from td.data import Task
from td.kernels import KERNELS, Patterns, every, select_kernels
from td.prune import sparsity


class TrainState(NamedTuple):
    """All that a run is, between two steps.

    Attributes:
      step: int32, finished steps.
      params: the stored parameters, never masked in place.
      mask_vars: the method's gates and stats.
      batch_stats: running statistics of the model's norms, {} if it has none.
      opt_state: the optimiser's state, over `(params, gates)`.
      average: the moving averages of `params` and of `batch_stats`, () without them.
    """

    step: Array
    params: Params
    mask_vars: MaskVars
    batch_stats: Any
    opt_state: Any
    average: Any = ()


class Experiment(NamedTuple):
    """What stays fixed during a run: the parts that a config names, put together.

    Attributes:
      model: a `flax.linen` module that knows nothing of the rest.
      transform: the method.
      optimizer: over `(params, gates)`.
      learning_rate: for the log.
      label_smoothing: the share of the target spread evenly over all classes, in training.
      average: decay of the moving average of the parameters, 0 for none.
      l2: weight of the penalty `l2 * sum(w^2) / 2` over all kernels.
      kernels: which kernels the method and the prune curve see.
      task: what the model is fed with and scored by.
    """

    model: Any
    transform: MaskTransform
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[Array], Array | float]
    label_smoothing: float
    average: float
    l2: float
    kernels: Patterns
    task: Task


Metrics = dict[str, Array]
TrainStep = Callable[..., tuple[TrainState, Metrics]]
"""`(state, batch, key, data=()) -> (state, metrics)`."""

Fetch = Callable[[Any, Any], Any]


def init_state(experiment: Experiment, key: RandomKey, batch: Any) -> TrainState:
    """Initialise model, method and optimiser.

    Args:
      experiment: the parts.
      key: the run's key.
      batch: for its shape only.

    Returns:
      The state at step 0.
    """
    # 0, 1 and 4 are the keys of the steps.
    model_key, mask_key = jax.random.fold_in(key, 2), jax.random.fold_in(key, 3)
    variables = experiment.model.init(model_key, *experiment.task.inputs(batch, None))
    params = variables["params"]
    mask_vars = experiment.transform.init(mask_key, params)
    params = experiment.transform.prune(params, mask_vars)
    opt_state = experiment.optimizer.init((params, mask_vars.gates))
    # A copy: training gives its state's memory away, and nothing of it may be shared.
    batch_stats = variables.get("batch_stats", {})
    average = jax.tree.map(jnp.copy, (params, batch_stats)) if experiment.average else ()
    return TrainState(jnp.zeros((), jnp.int32), params, mask_vars, batch_stats, opt_state, average)


def averaged(state: TrainState) -> TrainState:
    """The state whose parameters and statistics are their moving averages, where there are such: what is scored.

    Averaged parameters want averaged statistics: those of the last step belong to a network somewhere else.

    Args:
      state: of a run.

    Returns:
      The same state, or one with other `params` and `batch_stats`.

    Example:
      >>> averaged(TrainState(jnp.zeros(()), {"w": 1.0}, None, {}, None, ({"w": 2.0}, {}))).params
      {'w': 2.0}
    """
    if not state.average:
        return state
    params, batch_stats = state.average
    return state._replace(params=params, batch_stats=batch_stats)


def l2_penalty(params: Params, weight: float, kernels: Patterns = KERNELS) -> Array:
    """`weight * sum(w^2) / 2` over every kernel, stem and logits included, biases and norms not.

    Args:
      params: any pytree.
      weight: the coefficient.
      kernels: how those are read whose names and shapes do not tell.

    Returns:
      A float32 scalar.

    Example:
      >>> float(l2_penalty({"w": jnp.full((2, 2), 3.0), "b": jnp.ones(2)}, 0.5))
      9.0
    """
    if not weight:
        return jnp.zeros((), jnp.float32)
    chosen = select_kernels(params, every(kernels)).values()
    squares = [jnp.sum(jnp.square(kernel.astype(jnp.float32))) for kernel in chosen]
    return jnp.asarray(weight / 2 * sum(squares), jnp.float32)


def smoothed_cross_entropy(
    logits: Float[Array, "... classes"], labels: Int[Array, "..."], smoothing: float
) -> Float[Array, "..."]:
    """Cross entropy with a share of the target spread evenly over all classes, without one-hot targets.

    `(1 - smoothing) * -log p[label] + smoothing * mean over classes of -log p`.

    Args:
      logits: unnormalised.
      labels: of the classes.
      smoothing: the share, in [0, 1].

    Returns:
      One loss a label.

    Example:
      >>> round(float(smoothed_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), 0.1)[0]), 4)  # log 4
      1.3863

    Source: Szegedy et al. 2016, section 7.
    """
    right: Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return right
    evenly = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
    return (1 - smoothing) * right + smoothing * evenly


def make_train_step(
    experiment: Experiment, out_shardings: Any = None, fetch: Fetch | None = None, steps: int = 1
) -> TrainStep:
    """Build the step of a run: one trace, donated state.

    Args:
      experiment: the parts.
      out_shardings: of state and metrics, where there are several devices.
      fetch: `(data, batch) -> batch`, where the step is given something that stands for its batch.
      steps: how many steps one call does; of several, batches and metrics have the step as first axis.

    Returns:
      A jitted `(state, batch, key, data=()) -> (state, metrics)`. The key is the run's; the step is folded into it.
    """
    train_step = plain_train_step(experiment)

    def fetching(state: TrainState, batch: Any, key: RandomKey, data: Any = ()) -> tuple[TrainState, Metrics]:
        return train_step(state, batch if fetch is None else fetch(data, batch), key)

    def train_steps(state: TrainState, batches: Any, key: RandomKey, data: Any = ()) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, batch: fetching(state, batch, key, data), state, batches)

    return jax.jit(fetching if steps == 1 else train_steps, donate_argnums=0, out_shardings=out_shardings)


def plain_train_step(experiment: Experiment) -> TrainStep:
    """Build the step as a function to compose with others: `(state, batch, key) -> (state, metrics)`, not jitted."""
    model, transform, task = experiment.model, experiment.transform, experiment.task

    def loss_fn(trained: tuple[Params, Any], state: TrainState, batch: Any, key: RandomKey) -> tuple[Array, Any]:
        params, gates = trained
        mask_vars = state.mask_vars._replace(gates=gates)
        mask_key = jax.random.fold_in(key, 0)
        context = transform.context(params, mask_vars, key=mask_key, step=state.step)
        seen, mask_vars = transform.apply(params, mask_vars, key=mask_key, step=state.step)
        inputs = task.inputs(batch, jax.random.fold_in(jax.random.fold_in(key, 1), state.step))
        labels, weights = task.targets(batch)
        variables = {"params": seen, "batch_stats": state.batch_stats}
        rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(key, 4), state.step)}
        with context:
            logits, updated = model.apply(variables, *inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        losses = smoothed_cross_entropy(logits, labels, experiment.label_smoothing)
        cross_entropy = mean(losses, weights)
        penalty = transform.penalty(params, gates, state.step) + l2_penalty(params, experiment.l2, experiment.kernels)
        metrics = {
            "cross_entropy": cross_entropy,
            "penalty": penalty,
            "accuracy": mean(logits.argmax(-1) == labels, weights),
            "dropped": sparsity(seen, experiment.kernels).total,
        }
        return cross_entropy + penalty, (mask_vars, updated.get("batch_stats", {}), metrics)

    def train_step(state: TrainState, batch: Any, key: RandomKey) -> tuple[TrainState, Metrics]:
        trained = (state.params, state.mask_vars.gates)
        gradient_of = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (mask_vars, batch_stats, metrics)), gradients = gradient_of(trained, state, batch, key)
        updates, opt_state = experiment.optimizer.update(gradients, state.opt_state, trained)
        params, gates = optax.apply_updates(trained, updates)
        new_vars = mask_vars._replace(gates=gates)
        params = transform.prune(params, new_vars)
        metrics |= {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradients),
            "parameter_norm": optax.tree.norm(params),
            "learning_rate": jnp.asarray(experiment.learning_rate(state.step)),
        }
        average = state.average
        if experiment.average:
            # Rises to its full length: the first parameters are soon forgotten.
            decay = jnp.minimum(experiment.average, (1 + state.step) / (10 + state.step))
            params_, stats_ = optax.incremental_update((params, batch_stats), average, 1 - decay)
            average = transform.prune(params_, new_vars), stats_
        return TrainState(state.step + 1, params, new_vars, batch_stats, opt_state, average), metrics

    return train_step


def mean(values: Array, weights: Array) -> Array:
    """`sum(weights * values) / sum(weights)`.

    Example:
      >>> float(mean(jnp.array([1.0, 3.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
      2.0
    """
    return jnp.sum(values * weights) / jnp.sum(weights)


def make_losses(model: Any, task: Task) -> Callable[[Params, Any, Any], Array]:
    """Build the function from fixed parameters to the loss of each example of a batch.

    Args:
      model: a `flax.linen` module.
      task: what it is fed with and scored by.

    Returns:
      `(params, batch_stats, batch) -> [examples]`; an example with several targets has the mean of their losses.
    """

    def losses(params: Params, batch_stats: Any, batch: Any) -> Array:
        logits = model.apply({"params": params, "batch_stats": batch_stats}, *task.inputs(batch, None))
        labels, weights = task.targets(batch)
        each = weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        rows = len(labels)
        return each.reshape(rows, -1).sum(1) / jnp.maximum(weights.reshape(rows, -1).sum(1), 1)

    return losses


def make_eval_step(model: Any, task: Task) -> Callable[[Params, Any, Any], Metrics]:
    """Build the step that scores a batch with fixed parameters and running statistics.

    Args:
      model: a `flax.linen` module.
      task: what it is fed with and scored by.

    Returns:
      A jitted `(params, batch_stats, batch) -> sums` of loss, correct answers and examples, padding left out.
    """

    @jax.jit
    def eval_step(params: Params, batch_stats: Any, batch: Any) -> Metrics:
        logits = model.apply({"params": params, "batch_stats": batch_stats}, *task.inputs(batch, None))
        labels, weights = task.targets(batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = logits.argmax(-1) == labels
        return {
            "loss": jnp.sum(losses * weights),
            "correct": jnp.sum(right * weights),
            "examples": jnp.sum(weights),
        }

    return eval_step
