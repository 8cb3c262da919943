"""One training step and one evaluation step: pure functions of state, batch and key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from td.base import Params, RandomKey
from td.prune import sparsity
from td.train.losses import l2_penalty, mean, smoothed_cross_entropy
from td.train.state import Experiment, TrainState, predict

Metrics = dict[str, Array]
TrainStep = Callable[..., tuple[TrainState, Metrics]]
"""`(state, batch, key, data=()) -> (state, metrics)`. The key is the run's; the step is folded into it."""

EvalStep = Callable[[Params, Any, Any], Metrics]
"""`(params, batch_stats, batch) -> sums` of loss, correct answers and examples, padding left out."""

Fetch = Callable[[Any, Any], Any]
"""`(data, indices) -> batch`, for data that are on the device already."""


def plain_train_step(experiment: Experiment) -> TrainStep:
    """Build the step as a function to compose with others, not jitted."""
    model, transform, task = experiment.model, experiment.transform, experiment.task

    def loss_fn(trained: tuple[Params, Any], state: TrainState, batch: Any, key: RandomKey) -> tuple[Array, Any]:
        mask_key, input_key, dropout_key = (
            jax.random.fold_in(key, 0),
            *(jax.random.fold_in(jax.random.fold_in(key, use), state.step) for use in (1, 4)),
        )
        params, gates = trained
        mask_vars = state.mask_vars._replace(gates=gates)
        context = transform.context(params, mask_vars, key=mask_key, step=state.step)
        seen, mask_vars = transform.apply(params, mask_vars, key=mask_key, step=state.step)
        variables, rngs = {"params": seen, "batch_stats": state.batch_stats}, {"dropout": dropout_key}
        inputs, (labels, weights) = task.inputs(batch, input_key), task.targets(batch)
        with context:
            logits, updated = model.apply(variables, *inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        cross_entropy = mean(smoothed_cross_entropy(logits, labels, experiment.label_smoothing), weights)
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
        mask_vars = mask_vars._replace(gates=gates)
        params = transform.prune(params, mask_vars)
        average = state.average
        if experiment.average:
            # Rises to its full length: the first parameters are soon forgotten.
            decay = jnp.minimum(experiment.average, (1 + state.step) / (10 + state.step))
            params_, *others = optax.incremental_update((params, batch_stats, gates), average, 1 - decay)
            average = transform.prune(params_, mask_vars), *others
        metrics |= {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradients),
            "parameter_norm": optax.tree.norm(params),
            "learning_rate": jnp.asarray(experiment.learning_rate(state.step)),
        }
        return TrainState(state.step + 1, params, mask_vars, batch_stats, opt_state, average), metrics

    return train_step


def make_train_step(
    experiment: Experiment, out_shardings: Any = None, fetch: Fetch | None = None, steps: int = 1
) -> TrainStep:
    """Build the jitted step: one trace, donated state.

    With `fetch` the batch is made on the device. Of several `steps` in one program, batches and metrics have the step
    as first axis.
    """
    train_step = plain_train_step(experiment)

    def fetching(state: TrainState, batch: Any, key: RandomKey, data: Any = ()) -> tuple[TrainState, Metrics]:
        return train_step(state, batch if fetch is None else fetch(data, batch), key)

    def train_steps(state: TrainState, batches: Any, key: RandomKey, data: Any = ()) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, batch: fetching(state, batch, key, data), state, batches)

    return jax.jit(fetching if steps == 1 else train_steps, donate_argnums=0, out_shardings=out_shardings)


def make_eval_step(experiment: Experiment) -> EvalStep:
    """Build the jitted step that scores a batch with fixed parameters and running statistics."""

    @jax.jit
    def eval_step(params: Params, batch_stats: Any, batch: Any) -> Metrics:
        logits = predict(experiment, params, batch_stats, batch)
        labels, weights = experiment.task.targets(batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = logits.argmax(-1) == labels
        return {
            "loss": jnp.sum(losses * weights),
            "correct": jnp.sum(right * weights),
            "examples": jnp.sum(weights),
        }

    return eval_step
