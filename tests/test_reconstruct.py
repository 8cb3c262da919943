"""Reconstruction: least squares as numpy has them, for every kind of product, and the saliencies of OBS."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import td
from td.reconstruct.solve import removal_losses, solve

RIDGE = 1e-3


def drawn(seed=0, **shapes):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def halves(params, *pruned):
    """Masks that keep about half of the entries of some leaves."""
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.random(w.shape) < 0.5) if name in pruned else w == w for name, w in params.items()}


def lstsq(x, y, weights, kept, ridge=RIDGE):
    """`min ||X w - Y||^2 + ridge * mean(diag X'X) ||w - w_now||^2` on the support, unit by unit."""
    x, y, weights = (np.asarray(each, np.float64) for each in (x, y, weights))
    root, found = np.sqrt(ridge * np.mean(np.sum(x * x, axis=0))), np.zeros_like(weights)
    for unit, on in enumerate(np.asarray(kept).T):
        left = np.concatenate([x[:, on], root * np.eye(on.sum())])
        right = np.concatenate([y[:, unit], root * weights[on, unit]])
        found[on, unit] = np.linalg.lstsq(left, right, rcond=None)[0]
    return found


def test_two_layers_in_the_order_of_execution_with_a_bias_as_an_input_of_ones():
    params = drawn(a=(6, 5), bias=(5,), b=(5, 3))
    mask, x = halves(params, "a"), drawn(2, x=(3, 40, 6))["x"]
    network = lambda p, x: jnp.tanh(x @ p["a"] + p["bias"]) @ p["b"]  # noqa: E731
    found = td.reconstruct(network, params, mask, list(x))
    rows, ones = x.reshape(-1, 6), np.ones((120, 1))
    weights = np.concatenate([params["a"] * mask["a"], params["bias"][None]])
    kept = np.concatenate([mask["a"], np.ones((1, 5), bool)])
    first = lstsq(np.c_[rows, ones], rows @ params["a"] + params["bias"], weights, kept)
    hidden = np.tanh(rows @ first[:-1] + first[-1])  # of the network as repaired so far
    wanted = np.tanh(rows @ params["a"] + params["bias"]) @ params["b"]
    np.testing.assert_allclose(found["a"], first[:-1], atol=1e-5)
    np.testing.assert_allclose(found["bias"], first[-1], atol=1e-5)
    np.testing.assert_allclose(found["b"], lstsq(hidden, wanted, params["b"], np.ones((5, 3), bool)), atol=1e-5)


SETTINGS = {
    "stride and padding": {"window_strides": (2, 1), "padding": ((1, 0), (2, 1))},
    "dilation": {"window_strides": (1, 2), "padding": ((1, 2), (2, 1)), "rhs_dilation": (2, 1), "lhs_dilation": (1, 2)},
    "groups": {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 2},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_convolutions(name):
    settings = {**SETTINGS[name], "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    params = drawn(w=(3, 2, 4 // settings.get("feature_group_count", 1), 6))
    mask, x = halves(params, "w"), drawn(2, x=(5, 7, 6, 4))["x"]
    network = lambda p, x: lax.conv_general_dilated(x, p["w"], **settings)  # noqa: E731
    found = td.reconstruct(network, params, mask, [x])["w"]
    # Each weight's input at every output, by the function's derivative.
    of_unit = jax.jacobian(lambda w: network({"w": w}, x).reshape(-1, 6))(params["w"])
    for unit in range(6):
        rows = np.asarray(of_unit[:, unit, ..., unit]).reshape(-1, params["w"][..., 0].size)
        weights, kept = (np.asarray(each["w"])[..., unit].reshape(-1, 1) for each in (params, mask))
        expected = lstsq(rows, rows @ weights, weights * kept, kept)
        np.testing.assert_allclose(found[..., unit].reshape(-1, 1), expected, atol=2e-5)


def test_attention_projections_and_any_order_of_axes():
    params = drawn(query=(6, 2, 3), out=(3, 5, 2))
    mask, x = halves(params, "query", "out"), drawn(2, x=(4, 9, 6))["x"]
    network = lambda p, x: jnp.einsum("bthc,cdh->btd", jnp.einsum("btd,dhc->bthc", x, p["query"]), p["out"])  # noqa: E731
    found, rows = td.reconstruct(network, params, mask, [x]), x.reshape(-1, 6)
    flat = [np.asarray(each["query"]).reshape(6, 6) for each in (params, mask)]
    query = lstsq(rows, rows @ flat[0], flat[0] * flat[1], flat[1])
    np.testing.assert_allclose(found["query"].reshape(6, 6), query, atol=1e-5)
    flat = [np.asarray(each["out"]).transpose(2, 0, 1).reshape(6, 5) for each in (params, mask)]
    wanted = rows @ np.asarray(params["query"]).reshape(6, 6) @ flat[0]
    out = lstsq(rows @ query, wanted, flat[0] * flat[1], flat[1])
    np.testing.assert_allclose(found["out"].transpose(2, 0, 1).reshape(6, 5), out, atol=1e-5 * abs(out).max())


def test_scanned_layers_are_those_of_a_loop_in_python():
    stacked = drawn(w=(3, 5, 5), bias=(3, 5))
    mask, x = halves(stacked, "w"), drawn(2, x=(60, 5))["x"]

    def scanned(p, x):
        return lax.scan(lambda x, layer: (jnp.tanh(x @ layer["w"] + layer["bias"]), None), x, p)[0]

    def looped(p, x):
        for layer in range(3):
            x = jnp.tanh(x @ p["w"][layer] + p["bias"][layer])
        return x

    def indexed(p, x):
        return lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ p["w"][i] + p["bias"][i]), x)

    expected = td.reconstruct(looped, stacked, mask, [x])
    assert not np.allclose(expected["w"], stacked["w"] * mask["w"], atol=1e-2)
    for function in (scanned, indexed):
        found = td.reconstruct(function, stacked, mask, [x])
        np.testing.assert_allclose(found["w"], expected["w"], atol=1e-5)


def test_a_network_that_can_be_repaired_exactly_is_also_with_a_singular_gram():
    params = drawn(a=(4, 6), b=(6, 3))
    params["a"] = params["a"].at[:, 3:].set(params["a"][:, :3])  # units in pairs: one of each is enough
    mask = {"a": jnp.ones((4, 6), bool).at[:, 3:].set(False), "b": jnp.ones((6, 3), bool)}
    x = drawn(2, x=(50, 4))["x"]
    network = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"]  # noqa: E731
    found = td.reconstruct(network, params, mask, [x], ridge=0.0)
    np.testing.assert_allclose(network(found, x), network(params, x), atol=1e-4)
    assert not found["a"][:, 3:].any()


@pytest.mark.slow
def test_groups_and_n_m_masks_stay_where_they_are_and_bring_the_outputs_closer():
    params = drawn(a=(8, 8), bias=(8,), b=(8, 4))
    network, x = lambda p, x: jax.nn.relu(x @ p["a"] + p["bias"]) @ p["b"], drawn(2, x=(80, 8))["x"]
    structure = td.trace(network, params, x, include=["first", "last"])
    for mask in (
        td.prune_mask(params, 0.5, "group", kernels=structure),
        td.prune_mask(params, 0.5, scope="2:4", kernels=structure),
    ):
        found, pruned = td.reconstruct(network, params, mask, [x]), td.apply_mask(params, mask)
        assert all(not (found[name] * ~mask[name]).any() for name in params)
        error = [float(jnp.sum((network(p, x) - network(params, x)) ** 2)) for p in (found, pruned)]
        assert error[0] < 0.7 * error[1]


def test_what_is_no_product_of_its_own_stays_as_it_is():
    params = drawn(table=(7, 6), twice=(6, 6), scaled=(6, 6), gain=(6,), looped=(6, 6), last=(6, 6))
    mask, tokens = halves(params, "twice", "scaled", "looped", "last"), jnp.arange(20).reshape(4, 5) % 7

    def network(p, tokens):
        x = jnp.take(p["table"], tokens, axis=0)
        x = jnp.tanh(jnp.tanh(x @ p["twice"]) @ p["twice"]) @ (p["scaled"] * p["gain"])
        x = lax.while_loop(lambda state: state[0] < 2, lambda state: (state[0] + 1, state[1] @ p["looped"]), (0, x))[1]
        return x @ p["last"] @ p["table"].T

    found, pruned = td.reconstruct(network, params, mask, [tokens]), td.apply_mask(params, mask)
    changed = {name for name in params if (found[name] != pruned[name]).any()}
    assert changed == {"last"}


def test_another_reference_and_nothing_to_do():
    params, x = drawn(a=(4, 3)), drawn(2, x=(30, 4))["x"]
    mask, network = halves(params, "a"), lambda p, x: x @ p["a"]
    other = {"a": 2 * params["a"] * mask["a"]}
    found = td.reconstruct(network, params, mask, [(x,)], reference=other, ridge=0.0)
    np.testing.assert_allclose(found["a"], other["a"], atol=1e-5)
    whole = td.reconstruct(network, params, jax.tree.map(jnp.ones_like, mask), [x])
    assert (whole["a"] == params["a"]).all()
    with pytest.raises(td.UserError, match="at least one batch"):
        td.reconstruct(network, params, mask, [])


def test_a_network_that_would_become_worse_is_kept():
    params, mask = {"w": jnp.ones((2, 1))}, {"w": jnp.array([[True], [False]])}
    x = jnp.array([[1.0, 1.0]] * 9 + [[1.0, 0.0]])
    network = lambda p, x: x @ p["w"] * (1 - x[:, 1:])  # noqa: E731  # shows the one row that pruning leaves as it is
    assert (td.reconstruct(network, params, mask, [x])["w"] == jnp.array([[1.0], [0.0]])).all()
    network = lambda p, x: x @ p["w"]  # noqa: E731
    assert (td.reconstruct(network, params, mask, [x])["w"] > jnp.array([[1.5], [-1.0]])).all()


@pytest.mark.parametrize("ridge", [0.0, RIDGE])
def test_the_solver_is_exact_in_double_precision(ridge):
    rng = np.random.default_rng(0)
    x, y, kept = rng.normal(size=(2, 50, 12)), rng.normal(size=(2, 50, 5)), rng.random((2, 12, 5)) < 0.6
    x[1, :, 6:] = x[1, :, :6]  # singular
    found = solve(np.einsum("sni,snj->sij", x, x), np.einsum("sni,snu->siu", x, y), kept, ridge, 1e-15)
    for i, stack in enumerate(np.asarray(found)):
        np.testing.assert_allclose(stack, lstsq(x[i], y[i], np.zeros((12, 5)), kept[i], ridge), atol=1e-10)


def test_obs_losses_are_those_of_removing_and_solving_again():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    losses = np.asarray(removal_losses((x.T @ x)[None], w[None], 0.0))[0]
    for unit, own in enumerate(losses.T):

        def error(gone, unit=unit):
            kept = [i for i in range(3) if i not in gone]
            left = x[:, kept] @ np.linalg.lstsq(x[:, kept], x @ w[:, unit], rcond=None)[0] if kept else 0
            return np.sum((x @ w[:, unit] - left) ** 2)

        order = [int(i) for i in np.argsort(own)]
        first = min(range(3), key=lambda i: error([i]))
        assert order[0] == first and own[first] == pytest.approx(error([first]))
        steps = [error(order[: i + 1]) - error(order[:i]) for i in range(3)]
        np.testing.assert_allclose(own[order], list(itertools.accumulate(steps, max)), rtol=1e-5)


@pytest.mark.slow
def test_obs_ranks_correlated_inputs_where_magnitude_cannot():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(200, 3)), jnp.float32)
    x = x.at[:, 2].set(x[:, 0] + 0.01 * x[:, 2])  # nearly the first input again
    params, forward = {"w": jnp.array([[3.0], [1.0], [2.0]])}, lambda p, x: x @ p["w"]
    scores = td.importance.importances("obs", "weight", params, forward=forward, batches=[x], kernels=td.Kernels("w"))
    mask = td.prune_mask(params, 0.34, kernels=td.Kernels("w"), scores=scores)
    assert mask["w"].ravel().tolist() == [True, True, False]
    error = {
        name: float(jnp.sum((forward(found, x) - forward(params, x)) ** 2))
        for name, found in {
            "obs": td.reconstruct(forward, params, mask, [x]),
            "magnitude": td.reconstruct(forward, params, {"w": jnp.array([[True], [False], [True]])}, [x]),
        }.items()
    }
    assert error["obs"] < 0.1 * error["magnitude"]


def test_trap_masked_logits_do_not_discard_the_repair():
    params = drawn(a=(6, 5), b=(5, 3))
    mask, x = halves(params, "a"), drawn(2, x=(40, 6))["x"]
    network = lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"]  # noqa: E731
    masked = lambda p, x: jnp.where(jnp.arange(3) == 1, -jnp.inf, network(p, x))  # noqa: E731
    wanted = td.reconstruct(network, params, mask, [x])
    assert not np.array_equal(wanted["a"], params["a"] * mask["a"])
    np.testing.assert_allclose(td.reconstruct(masked, params, mask, [x])["a"], wanted["a"], atol=1e-6)


def test_complex_products_and_indices_out_of_range_stay_as_they_are():
    params, x = drawn(a=(6, 5), b=(5, 3)), drawn(2, x=(40, 6))["x"]
    mask = halves(params, "a")

    def network(p, x):
        hidden = jnp.abs(jnp.fft.fft(x) @ p["a"].astype(jnp.complex64))
        return hidden @ jnp.take(p["b"], jnp.array([0, 1, 2, 3, 9]), axis=0, mode="fill", fill_value=0)

    assert np.array_equal(td.reconstruct(network, params, mask, [x])["a"], params["a"] * mask["a"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"batches": [jnp.ones((4, 6)), jnp.ones((3, 6))]}, "batches differ in shape"),
        ({"reference": {"b": jnp.ones(3)}}, "the reference has another structure"),
        ({"mask": {"a": jnp.ones((6, 5), bool)}}, "the mask has another structure"),
        ({"reference": {"a": jnp.ones((6, 4)), "b": jnp.ones((4, 3))}}, "the reference has another .* shapes"),
        ({"ridge": -1.0}, "ridge=-1.0 is out of range"),
    ],
)
def test_what_does_not_fit_is_named(changed, words):
    params = drawn(a=(6, 5), b=(5, 3))
    given = {"mask": halves(params, "a"), "batches": [jnp.ones((4, 6))], **changed}
    with pytest.raises(td.UserError, match=words):
        td.reconstruct(lambda p, x: x @ p["a"] @ p["b"], params, **given)
