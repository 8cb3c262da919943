"""The training step: L2 penalty, label smoothing, the moving average of the parameters, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from td import data
from td.train import step
from td.train.experiment import build
from td.train.state import averaged
from td.train.step import l2_penalty, make_train_step


def test_l2_is_half_its_weight_times_the_squares_and_enters_the_step(tiny_config):
    tiny_config.optim.momentum = 0.0
    after = {}
    for l2 in (0.0, 0.5):
        tiny_config.optim.l2 = l2
        run, state = build(tiny_config, data.load(tiny_config.data.to_dict()))
        before = jax.device_get(state.params)
        batch = run.dataset.train.train_batch(0, 16, 0)
        state, metrics = step.make_train_step(run.experiment)(state, batch, run.key)
        after[l2] = state.params
        squares = sum(np.sum(np.square(before[layer]["kernel"])) for layer in ("hidden", "logits"))
        np.testing.assert_allclose(metrics["penalty"], l2 / 2 * squares, rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], metrics["cross_entropy"] + metrics["penalty"], rtol=1e-6)
    rate = tiny_config.optim.learning_rate
    for layer in ("hidden", "logits"):
        pulled = after[0.0][layer]["kernel"] - rate * 0.5 * before[layer]["kernel"]
        np.testing.assert_allclose(after[0.5][layer]["kernel"], pulled, atol=1e-5)
        np.testing.assert_allclose(after[0.5][layer]["bias"], after[0.0][layer]["bias"], atol=1e-6)


def test_gates_get_no_weight_decay():
    gates = {"w": jnp.full((2, 2), 3.0)}
    of_params, of_gates = jax.grad(lambda p, g: l2_penalty(p, 0.5), argnums=(0, 1))({"w": jnp.ones((2, 2))}, gates)
    assert of_params["w"].all() and not of_gates["w"].any()


def test_label_smoothing_by_hand(tiny_config):
    losses = {}
    for smoothing in (0.0, 0.1):
        tiny_config.optim.label_smoothing = smoothing
        run, state = build(tiny_config, data.load(tiny_config.data.to_dict()))
        batch = run.dataset.train.train_batch(0, 16, 0)
        logits = run.experiment.model.apply({"params": state.params}, data.standardize(batch.images))
        logs = np.asarray(jax.nn.log_softmax(logits))
        right, mean = logs[np.arange(16), np.asarray(batch.labels)], logs.mean(axis=1)
        losses[smoothing] = -np.mean((1 - smoothing) * right + smoothing * mean)
        _, metrics = step.make_train_step(run.experiment)(state, batch, run.key)
        np.testing.assert_allclose(metrics["cross_entropy"], losses[smoothing], rtol=1e-5)
    assert losses[0.0] != losses[0.1]


def test_the_moving_average_of_the_parameters_by_hand(tiny_config):
    tiny_config.optim.ema_decay = 0.5
    run, state = build(tiny_config, data.load(tiny_config.data.to_dict()))
    train_step = step.make_train_step(run.experiment)
    expected = np.asarray(state.params["hidden"]["kernel"], np.float64)
    for number in range(8):
        state, _ = train_step(state, run.dataset.train.train_batch(number, 16, 0), run.key)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["hidden"]["kernel"])
    np.testing.assert_allclose(state.ema[0]["hidden"]["kernel"], expected, rtol=1e-5)
    assert not np.allclose(state.params["hidden"]["kernel"], expected, rtol=1e-3)


def test_an_average_keeps_what_was_pruned_for_good_at_zero(smoke_config):
    config = smoke_config("mnist_mlp", "mask=random_prune,smoke")
    config.optim.ema_decay = 0.9
    run, state = build(config, data.load(config.data.to_dict()))
    state, _ = step.make_train_step(run.experiment)(state, run.dataset.train.train_batch(0, 16, 0), run.key)
    kernel, average = (tree["hidden"]["kernel"] for tree in (state.params, state.ema[0]))
    np.testing.assert_array_equal(kernel == 0, average == 0)
    assert (kernel == 0).mean() > 0.4


def test_trap_averaged_parameters_are_scored_with_averaged_statistics(smoke_config):
    config = smoke_config("digits_resnet", "mask=none,smoke")
    config.optim.ema_decay = 0.5
    run, state = build(config, data.load(config.data.to_dict()))
    train_step = step.make_train_step(run.experiment)
    expected = np.zeros(8)
    for number in range(4):
        state, _ = train_step(state, run.dataset.train.train_batch(number, 16, 0), run.key)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.batch_stats["stage1_block1"]["norm1"]["mean"])
    scored = averaged(state)
    np.testing.assert_allclose(scored.batch_stats["stage1_block1"]["norm1"]["mean"], expected, rtol=1e-4, atol=1e-7)
    assert not np.allclose(state.batch_stats["stage1_block1"]["norm1"]["mean"], expected, rtol=1e-2)


@pytest.mark.slow
def test_a_step_in_bfloat16_has_a_loss_and_a_state_in_float32(smoke_config):
    config = smoke_config("digits_resnet", "mask=ramping,smoke")
    config.model.dtype = "bfloat16"
    dataset = data.load(config.data.to_dict())
    run, state = build(config, dataset)
    batch = next(dataset.train.train_batches(config.data.batch_size, 0, 0))
    state, metrics = make_train_step(run.experiment)(state, batch, run.key)
    assert jnp.isfinite(metrics["loss"])
    floats = [leaf for leaf in jax.tree.leaves((state, metrics)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
