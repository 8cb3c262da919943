"""Scanned layers with widths of their own: equal outputs, sizes counted by hand, plans that repeat them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import assert_equal, loss, normal, shapes
from jax import lax

import td

pytestmark = pytest.mark.usefixtures("in_float64")

DEAD = ([0], [0, 3], [1, 2, 4])
"""Units without weights, by layer."""


def blocks(params, x, axis=0):
    """Scanned residual blocks, whose layers lie along an axis of every leaf."""
    layers = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axis, 0), params["layers"])
    block = lambda x, p: (x + jax.nn.relu(x @ p["up"] + p["bias"]) @ p["down"], None)  # noqa: E731
    return lax.scan(block, x, layers)[0] @ params["head"]


def blocks_params(axis=0):
    layers = {"up": normal(3, 6, 5), "bias": normal(3, 5, seed=1), "down": normal(3, 5, 6, seed=2)}
    for layer, dead in enumerate(DEAD):
        layers = {
            "up": layers["up"].at[layer, :, jnp.array(dead)].set(0),
            "bias": layers["bias"].at[layer, jnp.array(dead)].set(0),
            "down": layers["down"],
        }
    return {"layers": {name: jnp.moveaxis(leaf, 0, axis) for name, leaf in layers.items()}, "head": normal(6, 2)}


@pytest.mark.parametrize("axis", [0, 1])
def test_every_layer_has_its_own_widths(axis):
    def network(params, x):
        return blocks(params, x, axis)

    params, x = blocks_params(axis), normal(2, 6)
    small = td.compact(network, params, x, unroll=True)
    ups = [(6, 5 - len(dead)) for dead in DEAD]
    assert [leaf.shape for leaf in small.params.params["layers"]["up"]] == ups
    assert [leaf.shape for leaf in small.params.params["layers"]["down"]] == [shape[::-1] for shape in ups]
    assert "frozen" not in small.summary and not small.params.constants
    assert small.flops == (2 * 2 * (3 * 60 + 12), 2 * 2 * (2 * 6 * (4 + 3 + 2) + 12))
    for batch in (2, 7):
        assert_equal(network, params, small, normal(batch, 6))
    gradient = jax.grad(loss(small.apply))(small.params, x).params["layers"]["up"]
    expected = jnp.moveaxis(jax.grad(loss(network))(params, x)["layers"]["up"], axis, 0)
    for layer, dead in enumerate(DEAD):
        np.testing.assert_allclose(gradient[layer], np.delete(expected[layer], dead, 1), rtol=1e-10)


def test_a_plan_unrolls_again():
    params, x = blocks_params(), normal(2, 6)
    plan = json.loads(json.dumps(td.compact(blocks, params, x, unroll=True).plan))
    other = jax.tree.map(lambda leaf: 2 * leaf, params)
    again = td.apply_plan(blocks, other, plan, x)
    assert again.plan == plan and shapes(again)["layers/up/2"] == (6, 2)
    assert_equal(blocks, other, again, x)


def test_layers_within_layers():
    """A scan over groups of layers, within it one over the layers."""

    def network(params, x):
        block = lambda x, p: (x + jax.nn.relu(x @ p["up"]) @ p["down"], None)  # noqa: E731
        return lax.scan(lambda x, group: lax.scan(block, x, group), x, params)[0]

    params = {"up": normal(2, 2, 6, 5).at[1, 0, :, 1:4].set(0), "down": normal(2, 2, 5, 6)}
    small = td.compact(network, params, normal(2, 6), unroll=True)
    assert shapes(small)["up/1/0"] == (6, 2) and shapes(small)["up/0/1"] == (6, 5)
    assert_equal(network, params, small, normal(3, 6))


def test_recurrences_stay_loops():
    def network(params, x):
        step = lambda state, row: (jnp.tanh(row @ params["in"] + state @ params["state"]), None)  # noqa: E731
        return lax.scan(step, jnp.zeros((x.shape[1], 4)), x)[0]

    params = {"in": normal(3, 4), "state": normal(4, 4)}
    small = td.compact(network, params, normal(5, 2, 3), unroll=True)
    assert "scan" in str(jax.make_jaxpr(small.apply)(small.params, normal(5, 2, 3)))
    for length in (5, 8):
        assert_equal(network, params, small, normal(length, 2, 3))
