"""Compaction keeps the custom derivatives of elementwise functions, and names those that it cannot keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import assert_equal, normal, shapes

import td

pytestmark = pytest.mark.usefixtures("in_float64")


@jax.custom_jvp
def straight_through(x):
    return jnp.round(4 * x) / 4


straight_through.defjvps(lambda tangent, output, x: jnp.where(jnp.abs(x) < 2, tangent, 0.0))


@jax.custom_vjp
def learned_clip(x, most):
    return jnp.clip(x, 0, most)


learned_clip.defvjp(
    lambda x, most: (learned_clip(x, most), (x, most)),
    lambda saved, g: (jnp.where(saved[0] > saved[1], 0.0, g), jnp.sum(jnp.where(saved[0] > saved[1], g, 0.0)) * 3),
)


@jax.custom_vjp
def quantized(x, levels):
    return jnp.round(x * levels) / levels


quantized.defvjp(lambda x, levels: (quantized(x, levels), None), lambda _, g: (2 * g, None))

ACTIVATIONS = {
    "straight through": lambda x, p: straight_through(x),
    "clip": lambda x, p: learned_clip(x, p["most"]),
    "levels": lambda x, p: quantized(x, jnp.int32(5)),
    "mapped": lambda x, p: jax.vmap(straight_through)(x),
    "softplus": lambda x, p: jax.nn.softplus(x),
    "relu6": lambda x, p: jax.nn.relu6(x),
    "relu": lambda x, p: jax.nn.relu(x),
}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_gradients_are_those_of_the_custom_derivative(activation):
    """At 0 and at 6, where the equations have another derivative, and where they have none but 0."""
    apply = lambda p, x: activation(x @ p["a"] + p["c"], p) @ p["b"]  # noqa: E731
    params = {"a": normal(4, 8).at[:, ::2].set(0.0), "b": normal(8, 3), "c": jnp.zeros(8), "most": jnp.array(1.5)}
    small = td.compact(apply, params, normal(2, 4))
    inputs = normal(5, 4).at[:2].set(0.0)
    assert_equal(apply, params, small, inputs)
    assert shapes(small)["a"] == (4, 4) and "custom derivative" not in small.summary and "frozen" not in small.summary
    loss = lambda apply: lambda params, x: (apply(params, x) ** 2).sum() + apply(params, x).sum()  # noqa: E731
    whole = jax.grad(loss(apply), argnums=(0, 1))(params, inputs)
    part = jax.grad(loss(small.apply), argnums=(0, 1))(small.params, inputs)
    np.testing.assert_allclose(part[0].params["a"], whole[0]["a"][:, 1::2], rtol=1e-9)
    np.testing.assert_allclose(part[0].params["most"], whole[0]["most"], rtol=1e-9)
    np.testing.assert_allclose(part[1], whole[1], rtol=1e-9)


@jax.custom_jvp
def normalised(x):
    return x / jnp.abs(x).max(-1, keepdims=True)


@normalised.defjvp
def _(primals, tangents):
    return normalised(*primals), tangents[0]


@jax.custom_vjp
def of_unit_gradient(x):
    return jnp.sin(x)


of_unit_gradient.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (g / jnp.linalg.norm(g),))


@jax.custom_vjp
def without_gradient(x):
    return jnp.sin(x)


def unfinished(saved, g):
    raise NotImplementedError


without_gradient.defvjp(lambda x: (jnp.sin(x), None), unfinished)


@pytest.mark.parametrize("function", [normalised, of_unit_gradient, without_gradient])
def test_a_custom_derivative_that_is_not_elementwise_is_named(function):
    apply = lambda p, x: function(x @ p["a"] + p["c"]) @ p["b"]  # noqa: E731
    params = {"a": normal(4, 8).at[:, ::2].set(0.0), "b": normal(8, 3).at[::2].set(0.0), "c": normal(8)}
    small = td.compact(apply, params, normal(2, 4))
    assert_equal(apply, params, small, normal(5, 4))
    assert f"custom derivative replaced by that of its equations: {function.__name__}" in small.summary


def test_a_batch_of_any_size_is_exported_and_differentiated():
    apply = lambda p, x: straight_through(x @ p["a"]) @ p["b"]  # noqa: E731
    params = {"a": normal(4, 8).at[:, ::2].set(0.0), "b": normal(8, 3)}
    small = td.compact(apply, params, normal(2, 4))
    (batch,) = jax.export.symbolic_shape("batch")
    gradient = jax.jit(jax.grad(lambda params, x: small.apply(params, x).sum()))
    exported = jax.export.export(gradient)(small.params, jax.ShapeDtypeStruct((batch, 4), jnp.float64))
    found = exported.call(small.params, normal(7, 4))
    expected = jax.grad(lambda params: apply(params, normal(7, 4)).sum())(params)
    np.testing.assert_allclose(found.params["a"], expected["a"][:, 1::2], rtol=1e-9)
