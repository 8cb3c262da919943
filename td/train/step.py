"""Loss, training step and evaluation step: pure functions of state, batch and key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Int

from td.base import MaskTransform, MaskVars, Params, RandomKey, Step
from td.kernels import KERNELS, Patterns, every, select_kernels
from td.train import totals
from td.train.state import Experiment, TrainState, predict

Metrics = dict[str, Array]
TrainStep = Callable[..., tuple[TrainState, Metrics]]
"""`(state, batch, key, data=()) -> (state, metrics)`. The key is the run's; the step is folded into it."""

EvalStep = Callable[[Params, Any, Any], Metrics]
"""`(params, batch_stats, batch) -> sums` of loss, correct answers and examples, padding left out."""


def l2_penalty(params: Params, weight: float, kernels: Patterns = KERNELS) -> Array:
    """Compute `weight * sum(w^2) / 2` over every kernel, stem and logits included, biases and norms not."""
    if not weight:
        return jnp.zeros((), jnp.float32)
    chosen = [kernel.astype(jnp.float32) for kernel in select_kernels(params, every(kernels)).values()]
    squares = totals.total(lambda leaves: jnp.asarray(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)), chosen)
    return jnp.asarray(weight / 2 * squares, jnp.float32)


def smoothed_cross_entropy(
    logits: Float[Array, "... classes"], labels: Int[Array, "..."], smoothing: float
) -> Float[Array, "..."]:
    """`(1 - s) * -log p[label] + s * mean over classes of -log p` (Szegedy et al. 2016, section 7)."""
    exact: Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return exact
    evenly = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
    return (1 - smoothing) * exact + smoothing * evenly


def weighted_mean(values: Array, weights: Array) -> Array:
    """Compute `sum(weights * values) / sum(weights)`."""
    return jnp.sum(values * weights) / jnp.sum(weights)


def plain_train_step(experiment: Experiment) -> TrainStep:
    """Build the step as a function to compose with others, without jit."""
    model, transform, task = experiment.model, experiment.transform, experiment.task

    def loss_fn(trained: tuple[Params, Any], state: TrainState, batch: Any, key: RandomKey) -> tuple[Array, Any]:
        mask_key = jax.random.fold_in(key, 0)
        input_key, dropout_key = (jax.random.fold_in(jax.random.fold_in(key, use), state.step) for use in (1, 4))
        params, gates = trained
        mask_vars = state.mask_vars._replace(gates=gates)
        context = transform.context(params, mask_vars, key=mask_key, step=state.step)
        masked_params, mask_vars = transform.apply(params, mask_vars, key=mask_key, step=state.step)
        variables, rngs = {"params": masked_params, "batch_stats": state.batch_stats}, {"dropout": dropout_key}
        inputs, (labels, weights) = task.inputs(batch, input_key), task.targets(batch)
        with context:
            logits, updated = model.apply(variables, *inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        losses = smoothed_cross_entropy(logits, labels, experiment.label_smoothing)
        cross_entropy = weighted_mean(losses, weights)
        penalty = transform.penalty(params, gates, state.step) + l2_penalty(params, experiment.l2, experiment.kernels)
        metrics = {
            "cross_entropy": cross_entropy,
            "penalty": penalty,
            "accuracy": weighted_mean(logits.argmax(-1) == labels, weights),
            "dropped": totals.zeros(masked_params, experiment.kernels),
        }
        return cross_entropy + penalty, (mask_vars, updated.get("batch_stats", {}), metrics)

    def train_step(state: TrainState, batch: Any, key: RandomKey) -> tuple[TrainState, Metrics]:
        trained = (state.params, state.mask_vars.gates)
        gradient_of = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (mask_vars, batch_stats, metrics)), gradients = gradient_of(trained, state, batch, key)
        updates, opt_state = experiment.optimizer.update(gradients, state.opt_state, trained)
        params, gates = optax.apply_updates(trained, updates)
        mask_vars = mask_vars._replace(gates=gates)
        params = transform.prune(params, mask_vars)
        ema = state.ema
        if experiment.ema_decay:
            # Rises to its full length: the first parameters are soon forgotten.
            decay = jnp.minimum(experiment.ema_decay, (1 + state.step) / (10 + state.step))
            ema_params, *others = optax.incremental_update((params, batch_stats, gates), ema, 1 - decay)
            ema = transform.prune(ema_params, mask_vars), *others
        metrics |= {
            "loss": loss,
            "gradient_norm": totals.norm(gradients),
            "parameter_norm": totals.norm(params),
            "learning_rate": jnp.asarray(experiment.learning_rate(state.step)),
        }
        return TrainState(state.step + 1, params, mask_vars, batch_stats, opt_state, ema), metrics

    return train_step


def _laid_out(transform: MaskTransform) -> MaskTransform:
    """Keep masked parameters in the layout of the parameters: a GPU's compiler would copy each to a convolution's, mask
    the copy, and copy its zeros back to count them. Not for a population, which would take twice the memory."""

    def constrain(params: Params) -> Params:
        return jax.tree.map(lambda leaf: with_layout_constraint(leaf, Layout(tuple(range(leaf.ndim)))), params)

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        masked, mask_vars = transform.apply(params, mask_vars, key=key, step=step)
        return lax.platform_dependent(masked, cuda=constrain, default=lambda params: params), mask_vars

    return transform._replace(apply=apply)


def make_train_step(
    experiment: Experiment, out_shardings: Any = None, fetch: Callable[[Any, Any], Any] | None = None, steps: int = 1
) -> TrainStep:
    """Build the jitted step, which donates its state; of several `steps` in one, batches and metrics are stacked."""
    plain_step = plain_train_step(experiment._replace(transform=_laid_out(experiment.transform)))

    def train_step(state: TrainState, batch: Any, key: RandomKey, data: Any = ()) -> tuple[TrainState, Metrics]:
        return plain_step(state, batch if fetch is None else fetch(data, batch), key)

    def train_steps(state: TrainState, batches: Any, key: RandomKey, data: Any = ()) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, batch: train_step(state, batch, key, data), state, batches)

    return jax.jit(train_step if steps == 1 else train_steps, donate_argnums=0, out_shardings=out_shardings)


def make_eval_step(experiment: Experiment) -> EvalStep:
    """Build the jitted step that scores a batch with fixed parameters and running statistics."""

    @jax.jit
    def eval_step(params: Params, batch_stats: Any, batch: Any) -> Metrics:
        labels, weights = experiment.task.targets(batch)
        logits = predict(experiment, params, batch_stats, batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = logits.argmax(-1) == labels
        return {"loss": jnp.sum(losses * weights), "correct": jnp.sum(correct * weights), "examples": jnp.sum(weights)}

    return eval_step


def make_losses(experiment: Experiment) -> Callable[[Params, Any, Any], Array]:
    """Build `(params, batch_stats, batch) -> [examples]`; an example with several targets has their mean loss."""

    def losses(params: Params, batch_stats: Any, batch: Any) -> Array:
        labels, weights = experiment.task.targets(batch)
        logits = predict(experiment, params, batch_stats, batch)
        each = weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        rows = len(labels)
        return each.reshape(rows, -1).sum(1) / jnp.maximum(weights.reshape(rows, -1).sum(1), 1)

    return losses
