"""Optimisers against steps by hand, clipping, and the L2 penalty inside the training step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import trees_equal

from td import data, optim, step
from td.curve import prune_curve
from td.errors import UserError
from td.experiment import build, load_trained
from td.train import train

BASE = {
    "clip_norm": 0.0,
    "schedule": "constant",
    "learning_rate": 0.1,
    "warmup": 0,
    "momentum": 0.9,
    "nesterov": False,
    "b1": 0.9,
    "b2": 0.99,
    "gate_rate": 1.0,
    "clip_rms": 0.0,
    "accumulate": 1,
}
GRADIENTS = [np.array([3.0, -4.0]), np.array([1.0, 0.5]), np.array([-2.0, 2.0])]


def steps_of(**settings):
    optimizer = optim.build({**BASE, **settings}, steps=10)
    params = {"w": jnp.array([1.0, 2.0])}
    state = optimizer.init(params)
    for gradient in GRADIENTS:
        updates, state = optimizer.update({"w": jnp.asarray(gradient, jnp.float32)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params["w"]


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_by_hand(nesterov):
    weights, velocity = np.array([1.0, 2.0]), 0.0
    for gradient in GRADIENTS:
        velocity = 0.9 * velocity + gradient
        weights = weights - 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(steps_of(name="sgd", nesterov=nesterov), weights, rtol=1e-5)


def test_no_momentum_is_plain_descent():
    expected = np.array([1.0, 2.0]) - 0.1 * sum(GRADIENTS)
    np.testing.assert_allclose(steps_of(name="sgd", momentum=0.0), expected, rtol=1e-5)


def test_adam_by_hand():
    weights, m, v = np.array([1.0, 2.0]), 0.0, 0.0
    for t, gradient in enumerate(GRADIENTS, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        weights = weights - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    np.testing.assert_allclose(steps_of(name="adam"), weights, rtol=1e-4)


def test_the_global_norm_is_clipped():
    clipped = [gradient / max(1.0, np.linalg.norm(gradient)) for gradient in GRADIENTS]
    expected = np.array([1.0, 2.0]) - 0.1 * sum(clipped)
    np.testing.assert_allclose(steps_of(name="sgd", momentum=0.0, clip_norm=1.0), expected, rtol=1e-5)


def test_l2_is_half_its_weight_times_the_squares_and_enters_the_step(tiny_config):
    tiny_config.optim.momentum = 0.0
    after = {}
    for l2 in (0.0, 0.5):
        tiny_config.optim.l2 = l2
        run = build(tiny_config, data.load(tiny_config.data.to_dict()))
        before = jax.device_get(run.state.params)
        batch = data.train_batch(run.dataset.train, 0, 16, 0)
        state, metrics = step.make_train_step(run.experiment)(run.state, batch, run.key)
        after[l2] = state.params
        squares = sum(np.sum(np.square(before[layer]["kernel"])) for layer in ("hidden", "logits"))
        np.testing.assert_allclose(metrics["penalty"], l2 / 2 * squares, rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], metrics["cross_entropy"] + metrics["penalty"], rtol=1e-6)
    rate = tiny_config.optim.learning_rate
    for layer in ("hidden", "logits"):
        pulled = after[0.0][layer]["kernel"] - rate * 0.5 * before[layer]["kernel"]
        np.testing.assert_allclose(after[0.5][layer]["kernel"], pulled, atol=1e-5)
        np.testing.assert_allclose(after[0.5][layer]["bias"], after[0.0][layer]["bias"], atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_gates_have_a_learning_rate_of_their_own(name):
    trained = ({"w": jnp.ones(2)}, {"w": jnp.ones(2)})
    gradient = ({"w": jnp.array([0.3, -2.0])}, {"w": jnp.array([0.3, -2.0])})
    optimizer = optim.build({**BASE, "name": name, "gate_rate": 5.0}, steps=10)
    (params, gates), _ = optimizer.update(gradient, optimizer.init(trained), trained)
    np.testing.assert_allclose(gates["w"], 5 * params["w"], rtol=1e-6)


def test_gates_get_no_weight_decay():
    gates = {"w": jnp.full((2, 2), 3.0)}
    of_params, of_gates = jax.grad(lambda p, g: step.l2_penalty(p, 0.5), argnums=(0, 1))({"w": jnp.ones((2, 2))}, gates)
    assert of_params["w"].all() and not of_gates["w"].any()


def test_the_rms_of_each_leaf_is_clipped():
    clipped = [gradient / max(1.0, np.sqrt(np.mean(gradient**2))) for gradient in GRADIENTS]
    expected = np.array([1.0, 2.0]) - 0.1 * sum(clipped)
    np.testing.assert_allclose(steps_of(name="sgd", momentum=0.0, clip_rms=1.0), expected, rtol=1e-5)


def test_accumulated_batches_make_one_update_and_the_schedule_counts_batches():
    settings = {"name": "sgd", "momentum": 0.0, "accumulate": 2, "schedule": "staircase", "decay": 0.1}
    # Batches 0 and 1 make the first update, at rate 0.1; batch 2 waits for another.
    mean = (GRADIENTS[0] + GRADIENTS[1]) / 2
    np.testing.assert_allclose(steps_of(**settings, boundaries=(2,)), np.array([1.0, 2.0]) - 0.1 * mean, rtol=1e-5)
    optimizer = optim.build({**BASE, **settings, "boundaries": (2,)}, steps=10)
    params = {"w": jnp.ones(1)}
    state = optimizer.init(params)
    seen = []
    for _ in range(6):
        updates, state = optimizer.update({"w": jnp.ones(1)}, state, params)
        seen.append(float(updates["w"][0]))
    np.testing.assert_allclose(seen, [0, -0.1, 0, -0.01, 0, -0.01], rtol=1e-5)


def test_inverse_square_root_rises_to_its_peak_and_falls():
    rate = optim.learning_rate({"schedule": "inverse_sqrt", "learning_rate": 0.5, "warmup": 100}, 10_000)
    np.testing.assert_allclose([rate(t) for t in (0, 50, 100, 400, 10_000)], [0, 0.25, 0.5, 0.25, 0.05], rtol=1e-6)


def test_adafactor_by_hand():
    # Vectors are not factored: v is a moving average with decay 1 - t^-0.8, scaled by the parameters' RMS.
    weights, v = np.array([1.0, 2.0]), 0.0
    for t, gradient in enumerate(GRADIENTS, start=1):
        decay = 1 - float(t) ** -0.8
        v = decay * v + (1 - decay) * (gradient**2 + 1e-30)
        weights = weights - 0.1 * max(1e-3, np.sqrt(np.mean(weights**2))) * gradient / np.sqrt(v)
    np.testing.assert_allclose(steps_of(name="adafactor", momentum=0.0), weights, rtol=1e-4)


def test_label_smoothing_by_hand(tiny_config):
    losses = {}
    for smoothing in (0.0, 0.1):
        tiny_config.optim.label_smoothing = smoothing
        run = build(tiny_config, data.load(tiny_config.data.to_dict()))
        batch = data.train_batch(run.dataset.train, 0, 16, 0)
        logits = run.experiment.model.apply({"params": run.state.params}, data.standardize(batch.images))
        logs = np.asarray(jax.nn.log_softmax(logits))
        right, mean = logs[np.arange(16), np.asarray(batch.labels)], logs.mean(axis=1)
        losses[smoothing] = -np.mean((1 - smoothing) * right + smoothing * mean)
        _, metrics = step.make_train_step(run.experiment)(run.state, batch, run.key)
        np.testing.assert_allclose(metrics["cross_entropy"], losses[smoothing], rtol=1e-5)
    assert losses[0.0] != losses[0.1]


def test_the_moving_average_of_the_parameters_by_hand(tiny_config):
    tiny_config.optim.average = 0.5
    run = build(tiny_config, data.load(tiny_config.data.to_dict()))
    train_step, state = step.make_train_step(run.experiment), run.state
    expected = np.asarray(state.params["hidden"]["kernel"], np.float64)
    for number in range(8):
        state, _ = train_step(state, data.train_batch(run.dataset.train, number, 16, 0), run.key)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["hidden"]["kernel"])
    np.testing.assert_allclose(state.average[0]["hidden"]["kernel"], expected, rtol=1e-5)
    assert not np.allclose(state.params["hidden"]["kernel"], expected, rtol=1e-3)


def test_what_is_scored_is_the_average_and_what_goes_on_is_not(tiny_config, tmp_path, one_device):
    tiny_config.optim.average = 0.9
    result = train(tiny_config, tmp_path, one_device)
    run, stored = load_trained(tmp_path)[1], load_trained(tmp_path, average=False)[1]
    assert trees_equal((run.state.params, run.state.batch_stats), stored.state.average)
    assert not trees_equal(run.state.params, stored.state.params)
    (row,) = prune_curve(run, [0.0])
    assert row.accuracy == result["accuracy"] and row.loss == pytest.approx(result["loss"], rel=1e-5)
    tiny_config.optim.average = 0.0
    train(tiny_config, tmp_path / "without", one_device)
    assert trees_equal(load_trained(tmp_path / "without")[1].state.params, stored.state.params)


def test_an_average_keeps_what_was_pruned_for_good_at_zero(smoke_config):
    config = smoke_config("mnist_mlp", "mask=random_prune,smoke")
    config.optim.average = 0.9
    run = build(config, data.load(config.data.to_dict()))
    state, _ = step.make_train_step(run.experiment)(run.state, data.train_batch(run.dataset.train, 0, 16, 0), run.key)
    kernel, average = (tree["hidden"]["kernel"] for tree in (state.params, state.average[0]))
    np.testing.assert_array_equal(kernel == 0, average == 0)
    assert (kernel == 0).mean() > 0.4


def test_trap_averaged_parameters_are_scored_with_averaged_statistics(smoke_config):
    config = smoke_config("digits_resnet", "mask=none,smoke")
    config.optim.average = 0.5
    run = build(config, data.load(config.data.to_dict()))
    train_step, state = step.make_train_step(run.experiment), run.state
    expected = np.zeros(8)
    for number in range(4):
        state, _ = train_step(state, data.train_batch(run.dataset.train, number, 16, 0), run.key)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.batch_stats["stage1_unit1"]["norm1"]["mean"])
    scored = step.averaged(state)
    np.testing.assert_allclose(scored.batch_stats["stage1_unit1"]["norm1"]["mean"], expected, rtol=1e-4, atol=1e-7)
    assert not np.allclose(state.batch_stats["stage1_unit1"]["norm1"]["mean"], expected, rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("accumulate", 0), ("clip_rms", -1.0), ("gate_rate", -1.0), ("momentum", 2), ("momentum", -0.1), ("b1", 1.0)],
)
def test_numbers_out_of_range_are_told(name, value):
    with pytest.raises(UserError, match=f"optim.{name}={value} is out of range"):
        optim.build({**BASE, "name": "sgd", name: value}, steps=10)
