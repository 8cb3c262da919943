"""Compaction of scanned layers and of recurrences: equal outputs and gradients, sizes and FLOPs counted by hand."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest
import structure_loops
from compact_networks import assert_equal, loss, normal, shapes, zeroed
from jax import lax

import td

pytestmark = pytest.mark.usefixtures("in_float64")


def blocks(params, x):
    """Residual blocks; a channel of the stream is dead, and units of every block."""

    def block(x, p):
        return x + jax.nn.relu(x @ p["up"] + p["bias"]) @ p["down"], None

    return lax.scan(block, x @ params["stem"], params["layers"])[0] @ params["head"]


def blocks_params(layers=4, dead=(1, 2)):
    up, bias, down = normal(layers, 6, 5), normal(layers, 5, seed=1), normal(layers, 5, 6, seed=2)
    return {
        "stem": zeroed(normal(3, 6), (1, [0])),
        "layers": {
            "up": zeroed(up, (2, dead)),
            "bias": zeroed(bias, (1, dead)),
            "down": zeroed(down, (2, [0])),
        },
        "head": normal(6, 2),
    }


BLOCKS = {
    "head": (5, 2),
    "layers/bias": (4, 3),
    "layers/down": (4, 3, 5),
    "layers/up": (4, 5, 3),
    "stem": (3, 5),
}


def test_scanned_blocks():
    params, x = blocks_params(), normal(2, 3)
    small = td.compact(blocks, params, x)
    assert shapes(small) == BLOCKS and not small.params.constants and "frozen" not in small.summary
    assert small.flops == (2 * 2 * (18 + 4 * 60 + 12), 2 * 2 * (15 + 4 * 30 + 10))
    for batch in (2, 7):
        assert_equal(blocks, params, small, normal(batch, 3))


def test_gradients():
    params, x = blocks_params(), normal(2, 3)
    small = td.compact(blocks, params, x)
    expected = jax.grad(loss(blocks))(params, x)["layers"]["up"][:, 1:][:, :, [0, 3, 4]]
    found = jax.grad(loss(small.apply))(small.params, x).params["layers"]["up"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_biases_of_zeros_stay_and_learn():
    """Zeros of a parameter that is used are parameters too."""
    params, x = blocks_params(), normal(2, 3)
    params["layers"]["bias"] *= 0
    small = td.compact(blocks, params, x)
    assert shapes(small) == BLOCKS
    expected = jax.grad(loss(blocks))(params, x)["layers"]["bias"][:, [0, 3, 4]]
    found = jax.grad(loss(small.apply))(small.params, x).params["layers"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_plan():
    params, x = blocks_params(), normal(2, 3)
    plan = json.loads(json.dumps(td.compact(blocks, params, x).plan))
    other = jax.tree.map(lambda leaf: 2 * leaf, params)
    again = td.apply_plan(blocks, other, plan, x)
    assert again.plan == plan
    assert_equal(blocks, other, again, x)


def test_layers_that_lose_other_units():
    """They share a rectangle; the first layer keeps one more."""
    params, x = blocks_params(dead=[]), normal(2, 3)
    drop = np.ones((4, 5))
    for layer, dead in enumerate(([0], [0, 3], [2, 4], [1, 2])):
        drop[layer, dead] = 0
    layers = params["layers"]
    layers = {
        "up": layers["up"] * drop[:, None],
        "bias": layers["bias"] * drop,
        "down": layers["down"] * drop[:, :, None],
    }
    params["layers"] = layers
    small = td.compact(blocks, params, x)
    assert shapes(small)["layers/up"] == (4, 5, 4)
    assert_equal(blocks, params, small, normal(3, 3))


def test_dead_units_with_a_constant():
    """The bias of a dead unit differs between layers: it is computed."""
    params, x = blocks_params(), normal(2, 3)
    params["layers"]["bias"] = normal(4, 5, seed=4)
    small = td.compact(blocks, params, x)
    assert_equal(blocks, params, small, normal(3, 3))


def test_rounded_widths():
    params, x = blocks_params(dead=(1, 2, 3, 4)), normal(2, 3)
    small = td.compact(blocks, params, x, round_to=2)
    assert shapes(small)["layers/up"] == (4, 6, 2)
    assert_equal(blocks, params, small, normal(3, 3))


class Layer(nn.Module):
    """A Transformer layer."""

    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(2, param_dtype=float, name="attention")(nn.LayerNorm()(x))
        return x + nn.Dense(8, param_dtype=float)(nn.gelu(nn.Dense(12, param_dtype=float)(nn.LayerNorm()(x)))), None


@pytest.mark.parametrize("groups", [1, 4])
def test_scanned_convolutions(groups):
    """Padded ones, with channels that are dead, and one that is constant, in every block."""

    def apply(p, x):
        def convolve(x, w, groups=1):
            spec = ("NHWC", "HWIO", "NHWC")
            return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=spec, feature_group_count=groups)

        def block(x, p):
            inner = jax.nn.relu(convolve(x, p["a"], groups) + p["bias"])
            return x + convolve(inner, p["b"]), None

        return lax.scan(block, x @ p["stem"], p["layers"])[0].mean((1, 2)) @ p["head"]

    bias = zeroed(normal(3, 4), (1, [2])).at[:, 1].set(0.5)
    a = zeroed(normal(3, 3, 3, 4 // groups, 4), (4, [1, 2]))
    layers = {"a": a, "bias": bias, "b": zeroed(normal(3, 3, 3, 4, 4, seed=1), (4, [3]))}
    params = {"stem": zeroed(normal(3, 4), (1, [3])), "layers": layers, "head": normal(4, 2)}
    small = td.compact(apply, params, normal(2, 6, 6, 3))
    assert shapes(small)["layers/b"] == (3, 3, 3, {1: 3, 4: 3}[groups], 3) and "frozen" not in small.summary
    for side in (6, 8):
        assert_equal(apply, params, small, normal(2, side, side, 3))


@pytest.mark.slow
def test_scanned_modules():
    """As with `nn.scan` and remat, half of the groups pruned."""
    stack = nn.scan(nn.remat(Layer), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    x = normal(2, 5, 8)
    params = {"stem": normal(8, 8), "stack": stack.init(jax.random.key(0), x, None), "head": normal(8, 2)}

    def apply(params, x):
        return stack.apply(params["stack"], x @ params["stem"], None)[0] @ params["head"]

    structure = td.trace(apply, params, x)
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=structure))
    small = td.compact(apply, pruned, x)
    found = shapes(small)
    assert found["stack/params/Dense_0/kernel"] == (3, 6, 4)
    assert found["stack/params/attention/query/kernel"] == (3, 4, 2, 2) and not small.params.constants
    assert "frozen" not in small.summary
    assert "remat" in str(jax.make_jaxpr(small.apply)(small.params, x))
    for batch, length in ((2, 5), (3, 9)):
        assert_equal(apply, pruned, small, normal(batch, length, 8))
    jax.grad(loss(small.apply))(small.params, x)


def recurrent(cell, dead=(1, 3)):
    """A recurrence over time of which some units have neither weights nor biases."""
    rnn, x = nn.RNN(cell), normal(2, 4, 3)
    params = rnn.init(jax.random.key(0), x)

    def prune(path, leaf):
        gate = path[-2].key
        incoming = [(leaf.ndim - 1, dead)]
        rows = [(0, dead)] if leaf.ndim == 2 and gate.startswith("h") else []
        return zeroed(normal(*leaf.shape), *incoming, *rows)

    params = {"rnn": jax.tree_util.tree_map_with_path(prune, params), "head": normal(6, 2)}
    return lambda p, x: rnn.apply(p["rnn"], x) @ p["head"], params, x


SLOW = [pytest.param(cell, marks=pytest.mark.slow) for cell in (nn.OptimizedLSTMCell, nn.SimpleCell, nn.MGUCell)]


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, *SLOW])
def test_recurrences(cell):
    apply, params, x = recurrent(cell(6, param_dtype=float))
    small = td.compact(apply, params, x)
    rnn = {path: shape for path, shape in shapes(small).items() if path.endswith("kernel")}
    assert {shape[-1] for shape in rnn.values()} == {4} and shapes(small)["head"] == (4, 2)
    assert "frozen" not in small.summary and not small.params.constants
    for batch, length in ((2, 4), (3, 7), (1, 1)):
        assert_equal(apply, params, small, normal(batch, length, 3))


def test_lstm_of_one_kernel():
    apply, params, _ = structure_loops.lstm()
    gates = [unit + 8 * gate for gate in range(4) for unit in (2, 5, 7)]
    params = {
        "inner": zeroed(params["inner"], (1, gates)),
        "hidden": zeroed(params["hidden"], (1, gates)),
        "bias": zeroed(params["bias"], (0, gates)),
        "head": params["head"],
    }
    small = td.compact(apply, params, normal(2, 4, 5))
    assert shapes(small) == {"bias": (20,), "head": (5, 3), "hidden": (5, 20), "inner": (5, 20)}
    for length in (4, 9):
        assert_equal(apply, params, small, normal(2, length, 5))
