"""The state machine of Smallify, step by step by hand, and what the penalty and pruning see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.masks.smallify import Switches, observe


def start(sign=1.0):
    return Switches(jnp.ones((1, 1), bool), jnp.full((1, 1), sign), jnp.zeros((1, 1)))


def walk(signs, state):
    for sign in signs:
        state = observe(jnp.full((1, 1), 0.3 * sign), state)
        yield tuple(float(entry[0, 0]) for entry in state)


def test_a_steady_switch_never_dies():
    assert list(walk([1] * 5, start())) == [(1.0, 1.0, 0.0)] * 5
    assert list(walk([-1] * 5, start(-1.0))) == [(1.0, -1.0, 0.0)] * 5


@pytest.mark.parametrize("jit", [False, True])
def test_a_switch_that_changes_sign_dies_when_its_variance_has_passed_one_half(jit):
    # By hand, (alive, average, variance); each line from the line before, sign -1:
    #   diff -2    : alive  (0 < .5),    variance .1 * 4 = .4,               average .9 - .1 = .8
    #   diff -1.8  : alive  (.4 < .5),   variance .36 + .324 = .684,         average .72 - .1 = .62
    #   diff -1.62 : dead   (.684),      variance .6156 + .26244 = .87804,   average .558 - .1 = .458
    expected = [(1, 0.8, 0.4), (1, 0.62, 0.684), (0, 0.458, 0.87804)]
    with jax.disable_jit(not jit):
        np.testing.assert_allclose(list(walk([-1, -1, -1], start())), expected, rtol=1e-5)


def test_one_flip_back_and_forth_is_survived():
    # diff -2: variance .4, average .8; then sign +1, diff .2: variance .36 + .004 = .364, average .82
    np.testing.assert_allclose(list(walk([-1, 1], start())), [(1, 0.8, 0.4), (1, 0.82, 0.364)], rtol=1e-5)


def test_the_dead_never_come_back():
    lives = [state[0] for state in walk([-1] * 3 + [1] * 200, start())]
    assert lives[2:] == [0.0] * 201
    last = list(walk([-1] * 3 + [1] * 200, start()))[-1]
    assert last[2] < 0.01  # long calm again, and dead all the same


@pytest.mark.parametrize(("granularity", "shape"), [("weight", (18, 4)), ("unit", (1, 4))])
def test_weights_are_multiplied_by_living_switches(granularity, shape):
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    switch, alive = rng.normal(size=shape).astype(np.float32), rng.random(shape) < 0.5
    stats = {"w": Switches(jnp.asarray(alive), jnp.sign(switch), jnp.zeros(shape))}
    transform, params = td.masks.smallify(granularity, kernels=".*"), {"w": jnp.asarray(kernel)}
    mask_vars = td.MaskVars({"w": jnp.asarray(switch)}, stats)
    seen, _ = transform.apply(params, mask_vars, key=None, step=0)
    expected = (kernel.reshape(18, 4) * switch * alive).reshape(kernel.shape)
    np.testing.assert_allclose(seen["w"], expected, rtol=1e-6)
    intrinsic = td.sparsity(
        params, transform=transform, mask_vars=td.MaskVars({"w": jnp.asarray(switch)}, stats), kernels=".*"
    )
    assert float(intrinsic.total) == pytest.approx(1 - alive.mean())


def test_training_observes_and_evaluation_does_not():
    transform, params = td.masks.smallify(kernels=".*"), {"w": jnp.ones((4, 2))}
    first = transform.init(jax.random.key(0), params)
    mask_vars = first._replace(gates={"w": -first.gates["w"]})  # every sign has changed since
    for _ in range(3):
        _, same = transform.apply(params, mask_vars, key=None, step=0)
        assert same is mask_vars or float(same.stats["w"].variance.max()) == 0.0
    for _ in range(3):
        seen, mask_vars = transform.apply(params, mask_vars, key=jax.random.key(1), step=0)
    assert not mask_vars.stats["w"].alive.any() and not seen["w"].any()


def test_pruning_ranks_by_what_switches_leave_and_removes_what_is_dead():
    transform, params = td.masks.smallify(kernels=".*"), {"w": jnp.array([[1.0], [2.0], [3.0], [4.0]])}
    mask_vars = transform.init(jax.random.key(0), params)
    alive = jnp.array([[True], [True], [True], [False]])
    mask_vars = mask_vars._replace(
        gates={"w": jnp.array([[0.9], [0.9], [0.0], [0.5]])}, stats={"w": mask_vars.stats["w"]._replace(alive=alive)}
    )
    mask = td.prune_mask(params, 0.5, scores=transform.scores(params, mask_vars), kernels=".*")
    assert mask["w"].ravel().tolist() == [True, True, False, False]
    assert transform.prune(params, mask_vars)["w"].ravel().tolist() == [1.0, 2.0, 3.0, 0.0]


def test_penalty_is_the_sum_of_magnitudes():
    gates = {"a": jnp.array([[0.5, -0.25]]), "b": jnp.array([[-1.0]])}
    assert float(td.masks.smallify(cost=2.0).penalty({}, gates, 0)) == 3.5


def test_switches_start_uniformly_alive_and_calm():
    mask_vars = td.masks.smallify(kernels=".*").init(jax.random.key(3), {"w": jnp.ones((100, 100))})
    switch, seen = np.asarray(mask_vars.gates["w"]), mask_vars.stats["w"]
    assert switch.min() >= 0 and switch.max() < 1 and switch.mean() == pytest.approx(0.5, abs=0.015)
    assert bool(seen.alive.all()) and not seen.variance.any()
    np.testing.assert_array_equal(seen.average, np.sign(switch))
