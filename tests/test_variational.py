"""Sparse variational dropout against numpy: KL, thresholds, and the moments of both forms of noise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.masks.variational import kl_divergence, log_alpha

KEY = jax.random.key(11)
DRAWS = 4000


def log_alpha_by_hand(w, log_sigma2):
    return np.clip(log_sigma2 - np.log(w.astype(np.float64) ** 2 + 1e-8), -8, 8)


def kl_by_hand(log_a):
    k1, k2, k3 = 0.63576, 1.8732, 1.48695
    return -(k1 / (1 + np.exp(-(k2 + k3 * log_a))) - 0.5 * np.log(1 + np.exp(-log_a)) - k1).sum()


def patches(image, side, stride, padding):
    """`[positions, side * side * channels]` of one image, by loops."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    steps = range(0, padded.shape[0] - side + 1, stride)
    return np.stack([padded[i : i + side, j : j + side].ravel() for i in steps for j in steps])


def layer_and_rows(kind):
    """A layer, one input for it, and the rows that its kernel as a matrix is multiplied by."""
    rng = np.random.default_rng(4)
    if kind == "dense":
        inputs = rng.normal(size=(1, 6)).astype(np.float32)
        return nn.Dense(3), inputs, inputs
    image = rng.normal(size=(1, 5, 5, 2)).astype(np.float32)
    return nn.Conv(3, (3, 3), strides=2, padding=1), image, patches(image[0], 3, 2, 1)


@pytest.mark.parametrize("granularity", ["weight", "unit"])
@pytest.mark.parametrize("local", [True, False], ids=["local", "plain"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_outputs_have_the_mean_and_variance_of_the_formula(kind, local, granularity):
    layer, inputs, rows = layer_and_rows(kind)
    params = layer.init(jax.random.key(0), inputs)["params"]
    params["bias"] = jnp.array([1.0, -2.0, 0.5])
    fan_in = params["kernel"].size // 3
    log_sigma2 = jax.random.uniform(KEY, (fan_in if granularity == "weight" else 1, 3), minval=-5.0, maxval=0.0)
    transform = td.masks.variational(granularity, local=local, kernels=".*")
    mask_vars = td.MaskVars({"kernel": log_sigma2})

    @jax.jit
    def draw(step):
        with transform.context(params, mask_vars, key=KEY, step=step):
            seen, _ = transform.apply(params, mask_vars, key=KEY, step=step)
            return layer.apply({"params": seen}, inputs)

    outputs = np.asarray(jax.vmap(draw)(jnp.arange(DRAWS))).reshape(DRAWS, -1, 3)
    matrix = np.asarray(params["kernel"], np.float64).reshape(-1, 3)
    variances = np.exp(log_alpha_by_hand(matrix, np.asarray(log_sigma2))) * matrix**2
    mean, variance = rows @ matrix + np.asarray(params["bias"]), rows.astype(np.float64) ** 2 @ variances
    assert (np.abs(outputs.mean(axis=0) - mean) < 5 * np.sqrt(variance / DRAWS)).all()
    assert (np.abs(outputs.var(axis=0) / variance - 1) < 5 * np.sqrt(2 / DRAWS)).all()


def test_the_local_form_draws_for_every_example_and_position_and_the_plain_one_once():
    inputs = jnp.ones((200, 4, 4, 2))
    layer = nn.Conv(3, (1, 1))
    params = layer.init(KEY, inputs)["params"]
    for local, distinct in ((True, 200 * 16 * 3), (False, 3)):
        transform = td.masks.variational(local=local, kernels=".*")
        mask_vars = td.MaskVars({"kernel": jnp.full((2, 3), -1.0)})
        with transform.context(params, mask_vars, key=KEY, step=0):
            seen, _ = transform.apply(params, mask_vars, key=KEY, step=0)
            outputs = layer.apply({"params": seen}, inputs)
        assert len(np.unique(np.asarray(outputs))) > 0.99 * distinct if local else len(np.unique(outputs)) == distinct


def test_a_layer_that_is_called_twice_draws_twice():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            layer = nn.Dense(3, name="both")
            return layer(inputs), layer(inputs=inputs)

    inputs = jnp.ones((1, 3))
    params = Twice().init(KEY, inputs)["params"]
    transform = td.masks.variational(local=True, kernels=".*")
    mask_vars = td.MaskVars({"both/kernel": jnp.full((3, 3), -1.0)})
    with transform.context(params, mask_vars, key=KEY, step=0):
        first, second = Twice().apply({"params": params}, inputs)
    assert not np.array_equal(first, second)


def test_gradients_reach_weights_and_variances_and_are_finite_on_dead_inputs():
    layer, inputs = nn.Dense(3), jnp.zeros((2, 4)).at[0].set(1.0)
    params = {"kernel": jnp.full((4, 3), 0.5), "bias": jnp.zeros(3)}
    transform = td.masks.variational(local=True, kernels=".*")
    gates = {"kernel": jnp.full((4, 3), -2.0)}

    def loss(params, gates):
        with transform.context(params, td.MaskVars(gates), key=KEY, step=0):
            return jnp.sum(jnp.square(layer.apply({"params": params}, inputs)))

    of_params, of_gates = jax.grad(loss, argnums=(0, 1))(params, gates)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((of_params, of_gates)))
    assert of_gates["kernel"].all() and of_params["kernel"].all()


def test_a_kernel_outside_dense_and_conv_is_told():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return inputs @ self.param("w", nn.initializers.ones, (3, 2))

    params = Own().init(KEY, jnp.ones((1, 3)))["params"]
    transform = td.masks.variational(local=True, kernels=".*")
    mask_vars = transform.init(KEY, params)
    with (
        pytest.raises(td.UserError, match="'w' was not seen in a Dense or Conv layer"),
        transform.context(params, mask_vars, key=KEY, step=0),
    ):
        Own().apply({"params": params}, jnp.ones((1, 3)))


def test_other_layers_and_evaluation_are_left_alone():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Dense(2, name="logits")(nn.relu(nn.Dense(4, name="hidden")(inputs)))

    inputs = jnp.ones((5, 3))
    params = Net().init(KEY, inputs)["params"]
    transform = td.masks.variational(local=True)
    mask_vars = transform.init(KEY, params)
    assert list(mask_vars.gates) == ["hidden/kernel"]
    with transform.context(params, mask_vars, key=None, step=0):
        np.testing.assert_array_equal(Net().apply({"params": params}, inputs), Net().apply({"params": params}, inputs))
    silent = td.MaskVars({"hidden/kernel": jnp.full((3, 4), -30.0)})
    with transform.context(params, silent, key=KEY, step=0):
        noisy = Net().apply({"params": params}, inputs)
    assert 0 < float(jnp.abs(noisy - Net().apply({"params": params}, inputs)).max()) < 0.2  # log_a is no less than -8


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_penalty_is_the_kl_divergence_and_warms_up(granularity):
    rng = np.random.default_rng(6)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    gates = rng.uniform(-10, 2, size=(18 if granularity == "weight" else 1, 4)).astype(np.float32)
    expected = kl_by_hand(log_alpha_by_hand(kernel.reshape(18, 4), gates))
    params, trained = {"w": jnp.asarray(kernel)}, {"w": jnp.asarray(gates)}
    penalty = jax.jit(td.masks.variational(granularity, cost=0.5, warmup=100, examples=10, kernels=".*").penalty)
    values = [float(penalty(params, trained, step)) for step in (0, 25, 100, 1000)]
    np.testing.assert_allclose(values, 0.05 * expected * np.array([0, 0.25, 1, 1]), rtol=1e-5)
    at_once = td.masks.variational(granularity, cost=0.5, warmup=0, examples=10, kernels=".*").penalty
    np.testing.assert_allclose(at_once(params, trained, 0), 0.05 * expected, rtol=1e-5)


def test_kl_falls_as_the_noise_grows():
    values = [float(kl_divergence(jnp.array([log_a]))) for log_a in np.linspace(-8, 8, 33)]
    assert values == sorted(values, reverse=True) and abs(values[-1]) < 1e-3 < 1 < values[0]


def test_evaluation_removes_what_drowns_and_pruning_takes_the_noisiest_first():
    params = {"w": jnp.array([[1.0, 1.0], [0.1, 2.0], [0.01, 3.0], [0.5, 1e-6]])}
    gates = {"w": jnp.array([[0.0, 2.9], [0.0, 4.3], [0.0, 5.3], [3.0, -3.0]])}
    # log_a by hand: column 0: 0, 4.61, 8 (9.21 clipped), 4.39; column 1: 2.9, 2.91, 3.10, 8.
    transform = td.masks.variational(kernels=".*")
    seen, _ = transform.apply(params, td.MaskVars(gates), key=None, step=0)
    assert (np.asarray(seen["w"]) != 0).astype(int).T.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]
    scores = transform.scores(params, td.MaskVars(gates))
    assert td.prune_mask(params, 0.5, scores=scores, kernels=".*")["w"].astype(int).T.tolist() == [
        [1, 0, 0, 1],
        [1, 1, 0, 0],
    ]
    intrinsic = td.sparsity(params, transform=transform, mask_vars=td.MaskVars(gates), kernels=".*")
    assert float(intrinsic.total) == 5 / 8


def test_unit_scores_are_column_means():
    params = {"w": jnp.array([[1.0, 0.1], [1.0, 0.1]])}
    gates = {"w": jnp.array([[-2.0, -2.0]])}
    scores = td.masks.variational("unit", kernels=".*").scores(params, td.MaskVars(gates))["w"]
    np.testing.assert_allclose(scores, [[10.0, 8 + 2 + np.log(0.01 + 1e-8)]], rtol=1e-5)
    np.testing.assert_allclose(log_alpha(params["w"], gates["w"])[0], [-2, -2 - np.log(0.01 + 1e-8)], rtol=1e-5)
