"""Hard concrete gates against numpy: sampling, expected L0, test gates, pruning order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import td
from td.masks.l0 import sample_gate

KEY = jax.random.key(5)
BETA, ZETA, GAMMA = 2 / 3, 1.1, -0.1


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def distribution(z, location):
    """P(gate <= z) of the hard concrete distribution, for 0 <= z < 1, from Louizos et al. 2018, section 2.3."""
    s = (z - GAMMA) / (ZETA - GAMMA)
    return sigmoid(BETA * (np.log(s) - np.log(1 - s)) - location)


@pytest.mark.parametrize("location", [-1.0, 0.0, 2.0])
def test_gates_have_the_hard_concrete_distribution(location):
    gates = np.asarray(jax.jit(sample_gate)(KEY, jnp.full((400, 250), location)), np.float64)
    for z in (0.0, 0.1, 0.5, 0.9):
        share = distribution(z, location)
        assert abs((gates <= z).mean() - share) < 4.5 * np.sqrt(share * (1 - share) / gates.size)
    inner = gates[(gates > 0) & (gates < 1)]
    low, high = distribution(0.0, location), distribution(1 - 1e-12, location)
    assert stats.kstest(inner, lambda z: (distribution(z, location) - low) / (high - low)).pvalue > 1e-4


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_penalty_is_the_expected_number_of_open_weights(granularity, jit):
    rng = np.random.default_rng(1)
    params = {"conv": {"w": jnp.ones((3, 3, 2, 4))}, "dense": {"w": jnp.ones((6, 5))}}
    shapes = {"weight": ((18, 4), (6, 5)), "unit": ((1, 4), (1, 5))}[granularity]
    names = ("conv/w", "dense/w")
    locations = {name: rng.normal(size=shape).astype(np.float32) for name, shape in zip(names, shapes, strict=True)}
    expected = 0.0
    for location, fan_in in zip(locations.values(), (18, 6), strict=True):
        size = 1 if granularity == "weight" else fan_in
        expected += size * sigmoid(location - BETA * np.log(-GAMMA / ZETA)).sum()
    penalty = td.masks.l0(granularity, cost=0.5, examples=100, kernels=".*").penalty
    value = (jax.jit(penalty) if jit else penalty)(params, {name: jnp.asarray(a) for name, a in locations.items()}, 0)
    np.testing.assert_allclose(value, 0.5 / 100 * expected, rtol=1e-5)


def test_expected_open_share_is_the_share_of_gates_that_are_not_zero():
    location = jnp.full((500, 400), -0.7)
    penalty = td.masks.l0(cost=1.0, examples=1, kernels=".*").penalty({"w": jnp.ones((500, 400))}, {"w": location}, 0)
    drawn = float((sample_gate(KEY, location) > 0).mean())
    assert float(penalty) / 200_000 == pytest.approx(drawn, abs=0.005)


def test_evaluation_multiplies_by_the_stretched_keep_probability():
    location = np.array([[-9.0, -2.5, 0.0], [2.5, 9.0, 0.3]], np.float32)
    params = {"w": jnp.full((2, 3), 2.0)}
    seen, _ = td.masks.l0(kernels=".*").apply(params, td.MaskVars({"w": location}), key=None, step=0)
    expected = 2 * np.clip(sigmoid(location) * 1.2 - 0.1, 0, 1)
    np.testing.assert_allclose(seen["w"], expected, rtol=1e-5, atol=1e-7)
    intrinsic = td.sparsity(
        params, transform=td.masks.l0(kernels=".*"), mask_vars=td.MaskVars({"w": location}), kernels=".*"
    )
    assert float(intrinsic.total) == pytest.approx(2 / 6)  # -9 and -2.5 are off


def test_locations_start_where_the_drop_rate_says():
    mask_vars = td.masks.l0(initial_drop_rate=0.3, kernels=".*").init(KEY, {"w": jnp.ones((200, 200))})
    location = np.asarray(mask_vars.gates["w"])
    assert location.mean() == pytest.approx(np.log(0.7 / 0.3), abs=3e-4) and location.std() == pytest.approx(
        0.01, rel=0.05
    )


def test_unit_gates_open_and_close_whole_columns():
    transform, params = td.masks.l0("unit", initial_drop_rate=0.5, kernels=".*"), {"w": jnp.ones((7, 300))}
    seen, _ = transform.apply(params, transform.init(KEY, params), key=KEY, step=0)
    np.testing.assert_array_equal(seen["w"], np.broadcast_to(np.asarray(seen["w"])[:1], (7, 300)))


def test_pruning_removes_the_gates_least_likely_open():
    location = jnp.array([[3.0, -1.0], [1.0, 0.0], [2.0, 5.0], [-4.0, 4.0]])
    params = {"w": jnp.array([[0.1, 9.0], [9.0, 9.0], [0.1, 0.1], [9.0, 0.1]])}
    transform = td.masks.l0(kernels=".*")
    scores = transform.scores(params, td.MaskVars({"w": location}))
    mask = td.prune_mask(params, 0.5, scores=scores, kernels=".*")["w"]
    assert mask.astype(int).T.tolist() == [[1, 0, 1, 0], [0, 0, 1, 1]]


def test_trap_locations_at_which_the_sigmoid_is_one_still_rank():
    location = jnp.linspace(22.0, 17.5, 10)[:, None]
    assert bool((jax.nn.sigmoid(location) == 1).all())
    params = {"w": jnp.ones((10, 1))}
    scores = td.masks.l0(kernels=".*").scores(params, td.MaskVars({"w": location}))
    assert (
        td.prune_mask(params, 0.5, scores=scores, kernels=".*")["w"].ravel().astype(int).tolist() == [1] * 5 + [0] * 5
    )


def test_gates_get_a_gradient_from_the_loss_and_from_the_penalty():
    transform, params = td.masks.l0(initial_drop_rate=0.5, kernels=".*"), {"w": jnp.ones((20, 20))}
    mask_vars = transform.init(KEY, params)

    def loss(gates):
        return transform.apply(params, td.MaskVars(gates), key=KEY, step=0)[0]["w"].sum()

    gradient = jax.grad(loss)(mask_vars.gates)["w"]
    gates = transform.apply(params, mask_vars, key=KEY, step=0)[0]["w"]
    inner = (gates > 0) & (gates < 1)
    assert bool((gradient[inner] > 0).all()) and not gradient[~inner].any() and bool(inner.any())
    assert bool((jax.grad(lambda g: transform.penalty(params, g, 0))(mask_vars.gates)["w"] > 0).all())


@pytest.mark.parametrize(("name", "value"), [("initial_drop_rate", 0.0), ("initial_drop_rate", 1.0), ("examples", 0)])
def test_numbers_out_of_range_are_told(name, value):
    with pytest.raises(td.UserError, match=f"{name}={value} is out of range"):
        td.masks.l0(**{name: value})
