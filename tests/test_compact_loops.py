"""Compaction through while, cond, switch and unusual loops: equal outputs and gradients, FLOPs counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import assert_equal, loss, normal, shapes, zeroed
from jax import lax

import td

pytestmark = pytest.mark.usefixtures("in_float64")

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


@pytest.mark.parametrize("apply", [nested, mapped, until, backwards], ids=lambda apply: apply.__name__)
def test_symbolic_batches(apply):
    params = drawn()
    small = td.compact(apply, params, normal(3, 6))
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 6"), float)
    exported = jax.export.export(small.apply)(jax.eval_shape(lambda tree: tree, small.params), shape)
    np.testing.assert_allclose(exported.call(small.params, normal(5, 6)), apply(params, normal(5, 6)), rtol=1e-10)


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


def test_gradients_beside_a_while_loop():
    """A `while_loop` has no derivative backwards, so that constants that move into it must have none."""

    def apply(p, x):
        p, stopped = lax.stop_gradient(p), jax.nn.relu(lax.stop_gradient(x @ p["out"]) @ lax.stop_gradient(p["in"]))
        step = lambda s: (s[0] + 1, jnp.tanh(s[1] @ p["loop"] + p["bias"]))  # noqa: E731
        return lax.while_loop(lambda s: s[0] < 3, step, (0, stopped + p["bias"]))[1]

    def network(p, x):
        return apply(p, x) @ p["head"] + x @ p["out"]

    loop, bias = zeroed(normal(5, 5), (1, [2])), zeroed(normal(5), (0, [0]))
    params = {"in": zeroed(normal(3, 5), (1, [2])), "loop": loop, "bias": bias, "out": normal(4, 3)}
    params |= {"head": normal(5, 3)}
    small, x = td.compact(network, params, normal(2, 4)), normal(2, 4)
    assert_equal(network, params, small, x)
    assert shapes(small)["in"] == (3, 4)
    found, expected = (jax.grad(loss(f))(p, x) for f, p in ((small.apply, small.params), (network, params)))
    np.testing.assert_allclose(found.params["out"], expected["out"], rtol=1e-10)
