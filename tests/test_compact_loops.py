"""Compaction through scan, while and cond: equal outputs and gradients, sizes and FLOPs counted by hand."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import structure_loops
from compact_networks import assert_equal, normal, shapes
from jax import lax

import td

pytestmark = pytest.mark.usefixtures("in_float64")


def zeroed(array, *lines):
    """Zeros at some indices of an axis, `(axis, indices)`."""
    array = np.array(array)
    for axis, indices in lines:
        array[(slice(None),) * axis + (list(indices),)] = 0
    return jnp.asarray(array)


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


def loss(apply):
    return lambda params, *inputs: jnp.square(apply(params, *inputs)).sum()


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
    """Aligned, they share a rectangle; the first layer keeps one more."""
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
    aligned = td.align(td.trace(blocks, params, x), params)
    small = td.compact(blocks, aligned, x)
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


def test_scanned_modules():
    """As with `nn.scan` and remat, half of the groups pruned."""
    stack = nn.scan(nn.remat(Layer), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    x = normal(2, 5, 8)
    params = {"stem": normal(8, 8), "stack": stack.init(jax.random.key(0), x, None), "head": normal(8, 2)}

    def apply(params, x):
        return stack.apply(params["stack"], x @ params["stem"], None)[0] @ params["head"]

    structure = td.trace(apply, params, x)
    pruned = td.align(structure, td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=structure)))
    small = td.compact(apply, pruned, x)
    found = shapes(small)
    assert found["stack/params/Dense_0/kernel"] == (3, 6, 4)
    assert found["stack/params/attention/query/kernel"] == (3, 4, 2, 2) and not small.params.constants
    assert "frozen" not in small.summary
    for batch, length in ((2, 5), (3, 9)):
        assert_equal(apply, pruned, small, normal(batch, length, 8))


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


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.SimpleCell, nn.MGUCell])
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


W = {"w": (6, 6), "v": (6, 6), "head": (6, 2)}


def drawn(dead=(0, 4)):
    """Kernels of which some channels are dead from end to end."""
    return {
        name: zeroed(normal(*shape, seed=len(name)), (1, [] if name == "head" else dead)) for name, shape in W.items()
    }


def nested(p, x):
    def outer(x, _):
        x = lax.scan(lambda x, _: (jnp.tanh(x @ p["w"]), None), x, None, length=3)[0]
        return jnp.tanh(x @ p["v"]), None

    return lax.scan(outer, x @ p["w"], None, length=2)[0] @ p["head"]


def chosen(p, x):
    x = x @ p["w"]
    return lax.cond(x[0, 1] > 0, lambda x: jnp.tanh(x @ p["v"]), lambda x: x * 2, x) @ p["head"]


def switched(p, x):
    x = x @ p["w"]
    cases = [lambda x: x + 1 - 1, lambda x: x @ p["v"], lambda x: -x, lambda x: jnp.zeros_like(x)]
    return lax.switch(jnp.argmax(x[0, 1:4]), cases, x) @ p["head"]


def until(p, x):
    """A while loop with a counter and a vector."""
    start = (0, x @ p["w"])
    more = lambda state: (state[0] < 9) & (jnp.abs(state[1]).max() > 0.1)  # noqa: E731
    return lax.while_loop(more, lambda state: (state[0] + 1, jnp.tanh(state[1] @ p["v"]) / 2), start)[1] @ p["head"]


def backwards(p, x):
    """The outputs of a scan that runs backwards, over slices and with a constant carry."""

    def step(carry, x):
        x = jnp.tanh(x @ p["v"]) + carry[0]
        return (carry[0] * 1, carry[1] + x), carry[1]

    carry = (jnp.zeros(6), jnp.zeros(6))
    return lax.scan(step, carry, x @ p["w"], reverse=True)[1] @ p["head"]


def mapped(p, x):
    return lax.map(lambda x: jnp.tanh(x @ p["w"]) @ p["v"], x) @ p["head"]


def counted(p, x):
    return lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ p["v"]) * (i + 1), x @ p["w"]) @ p["head"]


@pytest.mark.parametrize(
    "apply", [nested, chosen, switched, until, backwards, mapped, counted], ids=lambda f: f.__name__
)
def test_loops_and_choices(apply):
    params, x = drawn(), normal(3, 6)
    small = td.compact(apply, params, x)
    found = shapes(small)
    assert found["head"] == (4, 2) and found["v"] == (4, 4) and found["w"][1] == 4
    assert not small.params.constants
    for batch in (3, 5):
        assert_equal(apply, params, small, normal(batch, 6))
        if apply is not until:  # which has no derivative in reverse
            expected = jax.grad(loss(apply))(params, normal(batch, 6))["head"][np.array([1, 2, 3, 5])]
            found = jax.grad(loss(small.apply))(small.params, normal(batch, 6)).params["head"]
            np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_flops_of_nested_loops_and_choices():
    params, x = drawn(), normal(3, 6)
    assert td.compact(nested, params, x).flops[1] == 2 * 3 * (24 + 2 * (3 * 16 + 16) + 8)
    assert td.compact(chosen, params, x).flops[1] == 2 * 3 * (24 + 16 + 8)


def shifted(p, x):
    """A carry that dies out, or wakes up, one entry an iteration."""
    step = lambda c, _: (jnp.concatenate([c[:, 1:], x[:, :1]], 1), c.sum(1))  # noqa: E731
    carry, sums = lax.scan(step, jnp.zeros((len(x), 20)), None, length=5)
    return carry @ p["w"] + sums.T @ p["v"]


def with_other_constants(p, x):
    """Constants that branches and iterations do not share; a needed one that they do."""
    x = x @ p["w"]
    ones = lax.cond(x[0, 1] > 0, lambda: jnp.array([1.0, 2.0, 3.0]), lambda: jnp.array([1.0, 2.0, 4.0]))
    final = lax.fori_loop(0, 3, lambda i, c: jnp.stack([c[0], c[1] + i, c[2]]), jnp.array([5.0, 6.0, 7.0]))
    return (x * ones) @ p["v"] + final


def with_frozen_operations(p, x):
    """An operation without a rule in a body."""
    step = lambda x, w: (x @ w @ jnp.linalg.cholesky(jnp.eye(6) + x.T @ x), None)  # noqa: E731
    return lax.scan(step, x, p["layers"])[0]


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))


def with_custom_derivatives(p, x):
    return lax.scan(lambda x, w: (jax.nn.relu(doubled(x) @ w), None), x, p["layers"])[0]


def with_keys(p, x):
    """Random draws from a key in the carry."""

    def step(state, w):
        key, x = state
        key, now = jax.random.split(key)
        return (key, x @ w + jax.random.normal(now, x.shape)), x.sum()

    (_, x), sums = lax.scan(step, (jax.random.key(0), x), p["layers"])
    return x, sums


def without_iterations(p, x):
    return lax.scan(lambda x, w: (x @ w, x), x, p["layers"][:0])


def pooled(p, x):
    """A while loop whose length is that of the inputs."""
    return lax.fori_loop(0, x.shape[0], lambda i, c: c + x[i] @ p["w"], jnp.zeros(3)) / x.shape[0]


def one_of_many(p, x):
    """Outputs that nothing uses, and the last of a stack."""
    step = lambda c, w: ((c[0] @ w, c[1] + 1), (c[0] @ w, c[0] @ p["w"]))  # noqa: E731
    _, (stack, _) = lax.scan(step, (x, x), p["layers"])
    return stack[-1]


LAYERS = {"layers": zeroed(normal(3, 6, 6), (1, [2]), (2, [0, 5]))}
UNUSUAL = [
    (shifted, {"w": zeroed(normal(20, 2), (0, [3])), "v": normal(5, 2)}, (4, 3)),
    (with_other_constants, {"w": zeroed(normal(4, 3), (1, [0])), "v": zeroed(normal(3, 3), (0, [1]))}, (4, 4)),
    (with_frozen_operations, LAYERS, (4, 6)),
    (with_custom_derivatives, LAYERS, (4, 6)),
    (with_keys, LAYERS, (4, 6)),
    (without_iterations, LAYERS, (4, 6)),
    (pooled, {"w": zeroed(normal(6, 3), (0, [1]))}, (4, 6)),
    (one_of_many, LAYERS | {"w": normal(6, 6)}, (4, 6)),
]


@pytest.mark.parametrize(("apply", "params", "size"), UNUSUAL, ids=lambda given: getattr(given, "__name__", ""))
def test_unusual_loops(apply, params, size):
    small = td.compact(apply, params, normal(*size))
    assert_equal(apply, params, small, normal(*size, seed=3))
    if apply is with_custom_derivatives:
        expected = jax.grad(loss(apply))(params, normal(*size))["layers"]
        found = jax.grad(loss(small.apply))(small.params, normal(*size)).params["layers"]
        np.testing.assert_allclose(found, np.asarray(expected)[:, [0, 1, 3, 4, 5], 1:5], rtol=1e-9)


def spectral(p, x):
    """A kernel divided by its norm, by power iteration."""

    def step(_, u):
        v = p["w"].T @ u
        u = p["w"] @ (v / jnp.linalg.norm(v))
        return u / jnp.linalg.norm(u)

    u = lax.fori_loop(0, 3, step, jnp.ones(6))
    return x @ p["w"] / (u @ p["w"] @ (p["w"].T @ u)) @ p["o"]


def gated(p, x):
    """A kernel with gates that a loop makes of a leaf."""
    return x @ (p["w"] * lax.map(lambda a: jnp.where(a > 0, a, 0.0), p["gates"])) @ p["o"]


def ordered(p, x):
    """A leaf through an operation without a rule, of one output."""
    return x @ (p["w"] * jnp.sort(p["gates"])[4]) @ p["o"]


@pytest.mark.parametrize("apply", [spectral, gated, ordered], ids=lambda apply: apply.__name__)
def test_loops_over_parameters_alone(apply):
    """Their values are known."""
    gates = jnp.array([1.0, 2.0, 3.0, -1.0, 2.0, 1.0, 1.0, 1.0])
    params = {"w": zeroed(normal(6, 8), (1, [] if apply is gated else [3])), "o": normal(8, 2), "gates": gates}
    small = td.compact(apply, params, normal(4, 6))
    assert shapes(small)["w"] == (6, 7) and shapes(small)["o"] == (7, 2)
    assert_equal(apply, params, small, normal(3, 6))


def test_frozen_operations_of_bodies_are_named():
    small = td.compact(with_frozen_operations, LAYERS, normal(4, 6))
    assert "frozen: cholesky has no rule" in small.summary and "scan" not in small.summary
