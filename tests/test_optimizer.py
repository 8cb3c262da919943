"""Optimisers against steps by hand, clipping, learning-rate schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from td.train.optimizer import make_learning_rate, make_optimizer

BASE = {
    "clip_norm": 0.0,
    "schedule": "constant",
    "learning_rate": 0.1,
    "warmup": 0,
    "momentum": 0.9,
    "nesterov": False,
    "b1": 0.9,
    "b2": 0.99,
    "gate_lr_multiplier": 1.0,
    "clip_rms": 0.0,
    "accumulate": 1,
}
GRADIENTS = [np.array([3.0, -4.0]), np.array([1.0, 0.5]), np.array([-2.0, 2.0])]


def steps_of(**settings):
    optimizer = make_optimizer({**BASE, **settings}, steps=10)
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


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_gates_have_a_learning_rate_of_their_own(name):
    trained = ({"w": jnp.ones(2)}, {"w": jnp.ones(2)})
    gradient = ({"w": jnp.array([0.3, -2.0])}, {"w": jnp.array([0.3, -2.0])})
    optimizer = make_optimizer({**BASE, "name": name, "gate_lr_multiplier": 5.0}, steps=10)
    (params, gates), _ = optimizer.update(gradient, optimizer.init(trained), trained)
    np.testing.assert_allclose(gates["w"], 5 * params["w"], rtol=1e-6)


def test_the_rms_of_each_leaf_is_clipped():
    clipped = [gradient / max(1.0, np.sqrt(np.mean(gradient**2))) for gradient in GRADIENTS]
    expected = np.array([1.0, 2.0]) - 0.1 * sum(clipped)
    np.testing.assert_allclose(steps_of(name="sgd", momentum=0.0, clip_rms=1.0), expected, rtol=1e-5)


def test_accumulated_batches_make_one_update_and_the_schedule_counts_batches():
    settings = {"name": "sgd", "momentum": 0.0, "accumulate": 2, "schedule": "staircase", "decay": 0.1}
    # Batches 0 and 1 make the first update, at rate 0.1; batch 2 waits for another.
    mean = (GRADIENTS[0] + GRADIENTS[1]) / 2
    np.testing.assert_allclose(steps_of(**settings, boundaries=(2,)), np.array([1.0, 2.0]) - 0.1 * mean, rtol=1e-5)
    optimizer = make_optimizer({**BASE, **settings, "boundaries": (2,)}, steps=10)
    params = {"w": jnp.ones(1)}
    state = optimizer.init(params)
    seen = []
    for _ in range(6):
        updates, state = optimizer.update({"w": jnp.ones(1)}, state, params)
        seen.append(float(updates["w"][0]))
    np.testing.assert_allclose(seen, [0, -0.1, 0, -0.01, 0, -0.01], rtol=1e-5)


def test_inverse_square_root_rises_to_its_peak_and_falls():
    rate = make_learning_rate({"schedule": "inverse_sqrt", "learning_rate": 0.5, "warmup": 100}, 10_000)
    np.testing.assert_allclose([rate(t) for t in (0, 50, 100, 400, 10_000)], [0, 0.25, 0.5, 0.25, 0.05], rtol=1e-6)


def test_adafactor_by_hand():
    # Vectors are not factored: v is a moving average with decay 1 - t^-0.8, scaled by the parameters' RMS.
    weights, v = np.array([1.0, 2.0]), 0.0
    for t, gradient in enumerate(GRADIENTS, start=1):
        decay = 1 - float(t) ** -0.8
        v = decay * v + (1 - decay) * (gradient**2 + 1e-30)
        weights = weights - 0.1 * max(1e-3, np.sqrt(np.mean(weights**2))) * gradient / np.sqrt(v)
    np.testing.assert_allclose(steps_of(name="adafactor", momentum=0.0), weights, rtol=1e-4)


def test_warm_up_then_staircase_keeps_the_boundaries_of_the_whole_run():
    settings = {
        "schedule": "staircase",
        "learning_rate": 1.0,
        "warmup": 10,
        "boundaries": (20, 30),
        "decay": 0.1,
    }
    rate = make_learning_rate(settings, 40)
    np.testing.assert_allclose([rate(t) for t in (0, 5, 10, 19, 20, 30)], [0, 0.5, 1, 1, 0.1, 0.01], rtol=1e-6)


def test_two_boundaries_at_one_step_are_two_decays():
    settings = {"schedule": "staircase", "learning_rate": 1.0, "warmup": 0, "boundaries": (5, 5), "decay": 0.1}
    np.testing.assert_allclose([make_learning_rate(settings, 10)(t) for t in (4, 5)], [1, 0.01], rtol=1e-6)
