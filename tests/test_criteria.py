"""Criteria and scopes against numpy sorts, and what is measured for them against finite sums."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_variational import patches

import td
from td import criteria, measure
from td.scopes import keep_masks

RNG = np.random.default_rng(8)
W, G = RNG.normal(size=(2, 6, 4)).astype(np.float32)
SQUARES, X = (np.abs(RNG.normal(size=shape)).astype(np.float32) for shape in ((6, 4), (6, 1)))
U = RNG.random((6, 4)).astype(np.float32)

EXPECTED = {
    "magnitude": (None, np.abs(W), np.sqrt((W**2).sum(0))),
    "l1": (None, np.abs(W), np.abs(W).sum(0)),
    "random": (U, U, U[0]),
    "taylor": (G, np.abs(W * G), np.abs((W * G).sum(0))),
    "fisher": (SQUARES, W**2 * SQUARES / 2, (W**2 * SQUARES / 2).sum(0)),
    "activation": (X, np.abs(W) * X, np.sqrt(((W * X) ** 2).sum(0))),
}


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_golden_importances(name):
    measured, of_weights, of_units = EXPECTED[name]
    measured = None if measured is None else jnp.asarray(measured)
    for granularity, expected in (("weight", of_weights), ("unit", of_units[None])):
        found = criteria.importance(jnp.asarray(W), granularity, name, measured)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_signed_importances_are_the_saliencies_of_weights_and_the_same_for_units(name):
    measured = None if EXPECTED[name][0] is None else jnp.asarray(EXPECTED[name][0])
    plain, signed = (
        {g: criteria.importance(-jnp.asarray(W), g, name, measured, signed=signed) for g in criteria.GRANULARITIES}
        for signed in (False, True)
    )
    np.testing.assert_array_equal(jnp.abs(signed["weight"]), plain["weight"])
    np.testing.assert_array_equal(signed["unit"], plain["unit"])
    if name == "magnitude":
        np.testing.assert_array_equal(signed["weight"], -W)


def test_a_criterion_without_its_measurement_is_told():
    with pytest.raises(td.UserError, match="'fisher' needs its squared gradient measured first"):
        td.prune_mask({"w": jnp.ones((2, 2))}, 0.5, criterion="fisher")
    with pytest.raises(td.UserError, match="did you mean 'magnitude'"):
        td.prune_mask({"w": jnp.ones((2, 2))}, 0.5, criterion="magnitud")
    with pytest.raises(td.UserError, match="criterion='taylor' is not known"):
        td.targeted(criterion="taylor")


def removed(scores, count):
    """The lowest `count` of a flat array by a stable sort."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(scores.ravel(), kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


def by_sorting(scores, rate, granularity, scope):
    count = lambda size: int(np.floor(np.float64(np.float32(rate)) * size + 1e-4))  # noqa: E731
    if scope == "global":
        flat = np.concatenate([s.ravel() for s in scores.values()])
        gone, start, masks = removed(flat, count(flat.size)), 0, {}
        for path, s in scores.items():
            masks[path] = ~gone[start : start + s.size].reshape(s.shape)
            start += s.size
        return masks
    if scope == "layer" or granularity == "unit":
        return {path: ~removed(s, count(s.size)) for path, s in scores.items()}
    if scope == "unit":
        columns = {path: [removed(c, count(c.size)) for c in s.T] for path, s in scores.items()}
        return {path: ~np.stack(c, axis=1) for path, c in columns.items()}
    kept, size = map(int, scope.split(":"))
    masks = {}
    for path, s in scores.items():
        mask = np.ones(s.shape, bool)
        for column in range(s.shape[1]):
            for first in range(0, s.shape[0], size):
                group = s[first : first + size, column]
                missing = size - group.size
                mask[first : first + size, column] = ~removed(group, max(min(count(size), size - kept) - missing, 0))
        masks[path] = mask
    return masks


@pytest.mark.parametrize(
    ("granularity", "scope"),
    [("weight", s) for s in ("unit", "layer", "global", "2:4", "1:4", "1:3")]
    + [("unit", s) for s in ("unit", "layer", "global")],
)
def test_scopes_agree_with_sorting(granularity, scope):
    rng = np.random.default_rng(9)
    rows = {"weight": (12, 10), "unit": (1, 1)}[granularity]
    scores = {"a": rng.integers(0, 9, (rows[0], 7)), "b": rng.integers(0, 30, (rows[1], 5))}
    scores = {path: score.astype(np.float32) for path, score in scores.items()}
    given = {path: jnp.asarray(score) for path, score in scores.items()}
    keep = jax.jit(lambda rate: keep_masks(given, rate, granularity, scope))
    for rate in (0.0, 0.1, 0.25, 0.5, 0.65, 0.75, 1.0):
        expected = by_sorting(scores, rate, granularity, scope)
        for path, mask in keep(jnp.float32(rate)).items():
            np.testing.assert_array_equal(mask, expected[path], err_msg=f"{path} at {rate}")
    assert keep._cache_size() == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3, 8, 22]))
def test_two_of_four_always_stay(seed, rows):
    scores = {"w": jnp.asarray(np.random.default_rng(seed).random((rows, 5)), jnp.float32)}
    mask = np.asarray(keep_masks(scores, 1.0, "weight", "2:4")["w"])
    for first in range(0, rows, 4):
        assert (mask[first : first + 4].sum(axis=0) == min(2, rows - first)).all()


def test_what_is_zero_already_goes_first_whatever_the_scores_say():
    params = {"w": jnp.array([[0.0], [1.0], [2.0], [0.0]])}
    scores = {"w": jnp.array([[9.0], [2.0], [3.0], [1.0]])}
    assert td.prune_mask(params, 0.5, scores=scores)["w"].ravel().tolist() == [False, True, True, False]


def test_global_pruning_takes_more_from_the_weaker_kernel():
    params = {
        "w1": 0.1 * jax.random.normal(jax.random.key(0), (20, 20)),
        "w2": jax.random.normal(jax.random.key(1), (20, 20)),
    }
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, scope="global"))
    measured = td.sparsity(pruned)
    assert float(measured.total) == 0.5 and measured.kernels["w1"] > 0.8 > 0.2 > measured.kernels["w2"]


@pytest.mark.parametrize(
    ("scope", "granularity", "words"),
    [
        ("layr", "weight", "did you mean 'layer'"),
        ("4:2", "weight", "out of range"),
        ("0:4", "weight", "out of range"),
        ("2:4", "unit", "is of weights"),
        ("", "weight", "unknown scope"),
    ],
)
def test_bad_scopes_are_told(scope, granularity, words):
    for make in (
        lambda: td.targeted(granularity, scope=scope),
        lambda: td.prune_mask({"w": jnp.ones((4, 4))}, 0.5, granularity, scope=scope),
    ):
        with pytest.raises(td.UserError, match=words):
            make()


def test_groups_with_some_to_spare_are_told():
    with pytest.raises(td.UserError, match="leave spare at 0"):
        keep_masks({"w": jnp.ones((4, 2))}, 0.5, "weight", "2:4", spare=1)


def dense_losses(params, batch):
    inputs, targets = batch
    return jnp.sum(jnp.square(inputs @ params["w"] - targets), axis=1)


def test_gradients_and_their_squares_by_hand():
    rng = np.random.default_rng(10)
    w = rng.normal(size=(5, 3)).astype(np.float32)
    x, y = (rng.normal(size=(4, 6, n)).astype(np.float32) for n in (5, 3))  # 4 batches of 6
    each = 2 * np.einsum("bni,bno->bnio", x, x @ w - y)
    params, batches = {"w": jnp.asarray(w)}, list(zip(x, y, strict=True))
    found = measure.gradient(dense_losses, params, batches)["w"]
    np.testing.assert_allclose(found, each.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    squares = measure.squared_gradient(dense_losses, params, batches)["w"]
    np.testing.assert_allclose(squares, (each**2).mean(axis=(0, 1)), rtol=1e-4)


def test_taylor_predicts_the_change_of_loss_and_fisher_is_not_the_square_of_the_mean():
    rng = np.random.default_rng(12)
    params = {"w": jnp.asarray(rng.normal(size=(5, 3)).astype(np.float32))}
    batch = tuple(jnp.asarray(rng.normal(size=(40, n)).astype(np.float32)) for n in (5, 3))
    small = {"w": params["w"].at[2, 1].set(1e-3)}
    score = measure.importances(
        "taylor", "weight", small, losses=dense_losses, forward=dense_losses, batches=[batch], key=jax.random.key(0)
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
    found = measure.input_norm(forward, params, list(jnp.asarray(images)))
    rows = np.stack([np.concatenate([patches(image, 3, 2, 1) for image in batch]) for batch in images])
    expected = np.sqrt((rows**2).sum(axis=1).mean(axis=0))
    np.testing.assert_allclose(found["conv/kernel"], np.broadcast_to(expected[:, None], (18, 3)), rtol=1e-4)
    conv = nn.Conv(3, (3, 3), strides=2, padding=1)
    hidden = np.stack([conv.apply({"params": params["conv"]}, batch).reshape(4, -1) for batch in images])
    norms = np.sqrt((hidden**2).sum(axis=1).mean(axis=0))
    np.testing.assert_allclose(found["dense/kernel"][:, 0], norms, rtol=1e-4)


def test_nothing_to_measure_on_is_told():
    with pytest.raises(td.UserError, match="no batch to measure on"):
        measure.gradient(dense_losses, {"w": jnp.ones((2, 2))}, [])
