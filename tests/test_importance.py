"""What criteria measure on data, against formulas by hand: gradients, their squares, norms of inputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_variational import patches

import td
from td import importance

RNG = np.random.default_rng(8)


def dense_losses(params, batch):
    inputs, targets = batch
    return jnp.sum(jnp.square(inputs @ params["w"] - targets), axis=1)


def test_gradients_and_their_squares_by_hand():
    rng = np.random.default_rng(10)
    w = rng.normal(size=(5, 3)).astype(np.float32)
    x, y = (rng.normal(size=(4, 6, n)).astype(np.float32) for n in (5, 3))  # 4 batches of 6
    each = 2 * np.einsum("bni,bno->bnio", x, x @ w - y)
    params, batches = {"w": jnp.asarray(w)}, list(zip(x, y, strict=True))
    found = importance.gradient(dense_losses, params, batches, kernels=".*")["w"]
    np.testing.assert_allclose(found, each.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    squares = importance.squared_gradient(dense_losses, params, batches, kernels=".*")["w"]
    np.testing.assert_allclose(squares, (each**2).mean(axis=(0, 1)), rtol=1e-4)


def test_taylor_predicts_the_change_of_loss_and_fisher_is_not_the_square_of_the_mean():
    rng = np.random.default_rng(12)
    params = {"w": jnp.asarray(rng.normal(size=(5, 3)).astype(np.float32))}
    batch = tuple(jnp.asarray(rng.normal(size=(40, n)).astype(np.float32)) for n in (5, 3))
    small = {"w": params["w"].at[2, 1].set(1e-3)}
    score = importance.importances(
        "taylor",
        "weight",
        small,
        losses=dense_losses,
        forward=dense_losses,
        batches=[batch],
        key=jax.random.key(0),
        kernels=".*",
    )["w"]
    without = {"w": small["w"].at[2, 1].set(0.0)}
    change = abs(dense_losses(small, batch).mean() - dense_losses(without, batch).mean())
    np.testing.assert_allclose(score[2, 1], change, rtol=0.02)


def test_input_norms_of_a_strided_padded_convolution_and_a_dense_layer():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, images):
            hidden = nn.Conv(3, (3, 3), strides=2, padding=1, name="conv")(images)
            return nn.Dense(2, name="dense")(hidden.reshape(len(images), -1))

    images = RNG.normal(size=(3, 4, 5, 5, 2)).astype(np.float32)  # 3 batches of 4
    params = Net().init(jax.random.key(0), images[0])["params"]
    forward = lambda params, batch: Net().apply({"params": params}, batch)  # noqa: E731
    found = importance.input_norm(forward, params, list(jnp.asarray(images)), kernels=".*")
    rows = np.stack([np.concatenate([patches(image, 3, 2, 1) for image in batch]) for batch in images])
    expected = np.sqrt((rows**2).sum(axis=1).mean(axis=0))
    np.testing.assert_allclose(found["conv/kernel"], np.broadcast_to(expected[:, None], (18, 3)), rtol=1e-4)
    conv = nn.Conv(3, (3, 3), strides=2, padding=1)
    hidden = np.stack([conv.apply({"params": params["conv"]}, batch).reshape(4, -1) for batch in images])
    norms = np.sqrt((hidden**2).sum(axis=1).mean(axis=0))
    np.testing.assert_allclose(found["dense/kernel"][:, 0], norms, rtol=1e-4)


def test_nothing_to_measure_on_is_told():
    with pytest.raises(td.UserError, match="no batch to measure on"):
        importance.gradient(dense_losses, {"w": jnp.ones((2, 2))}, [])


@pytest.mark.parametrize(("criterion", "missing"), [("taylor", "losses"), ("activation", "forward"), ("random", "key")])
def test_a_criterion_asks_for_what_it_needs_and_for_nothing_else(criterion, missing):
    params = {"w": jnp.array([[1.0, 2.0]]), "counted": jnp.arange(3)}  # whole numbers are not differentiated
    with pytest.raises(td.UserError, match=f"criterion '{criterion}' needs {missing}"):
        importance.importances(criterion, "weight", params, kernels=".*")
    assert set(importance.importances("magnitude", "weight", params, kernels=".*")) == {"w"}
    batches = [(jnp.ones((3, 1)), jnp.ones((3, 2)))]
    found = importance.importances("taylor", "weight", params, losses=dense_losses, batches=batches, kernels=".*")
    assert found["w"].shape == (1, 2)
