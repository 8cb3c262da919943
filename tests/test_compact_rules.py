"""Compaction of other libraries' modules and of every kind of operation."""

import math

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import DIMENSIONS, assert_equal, counted, normal, shapes
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core
from jax.interpreters import mlir

import td
from td.compact import rules
from td.compact.rules.base import FROZEN

pytestmark = pytest.mark.usefixtures("in_float64")


def test_modules_of_other_libraries():
    inputs, half = normal(5, 6), lambda leaf: leaf.at[..., ::2].set(0.0)

    def network(inputs):
        hidden = jax.nn.relu(hk.Linear(8, name="hidden")(inputs))
        return hk.Linear(2, name="logits")(hidden)

    haiku = hk.without_apply_rng(hk.transform(network))
    params = haiku.init(jax.random.key(0), inputs)
    params["hidden"]["w"] = half(params["hidden"]["w"])
    small = td.compact(haiku.apply, params, inputs)
    assert_equal(haiku.apply, params, small, inputs[:2])
    assert counted(small) == 6 * 4 + 4 + 4 * 2 + 2

    model = eqx.nn.MLP(6, 2, width_size=8, depth=1, key=jax.random.key(1))
    model = eqx.tree_at(lambda m: m.layers[0].weight, model, model.layers[0].weight.at[::2].set(0.0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    apply = lambda params, x: jax.vmap(eqx.combine(params, static))(x)  # noqa: E731
    small = td.compact(apply, params, inputs)
    assert_equal(apply, params, small, inputs[:2])
    assert counted(small) == 6 * 4 + 4 + 4 * 2 + 2

    graph, state = nnx.split(nnx.Linear(6, 8, rngs=nnx.Rngs(0), param_dtype=jnp.float64))
    state["kernel"] = jax.tree.map(lambda leaf: leaf.at[:3].set(0.0), state["kernel"])
    apply = lambda state, x: nnx.merge(graph, state)(x)  # noqa: E731
    small = td.compact(apply, state, inputs)
    assert_equal(apply, state, small, inputs[:2])
    assert counted(small) == 3 * 8 + 8


def test_other_operations_keep_outputs_equal_and_lose_what_they_can():
    def apply(params, x):
        hidden = jnp.where(x[..., :1] > 0, x @ params["a"], 0.0) + params["c"]  # [batch, length, 6]
        first, second = jnp.split(hidden, 2, axis=-1)
        gated = jax.nn.sigmoid(first) * second[..., ::-1]
        gated = jax.checkpoint(jnp.exp)(gated).astype(jnp.float32).astype(jnp.float64)
        seen = jax.nn.softmax(gated @ params["s"], axis=1)  # over the positions
        pooled = jnp.einsum("nlh,nld->nhd", seen, jnp.expand_dims(gated, 1).squeeze(1))
        return pooled.reshape(len(x), -1) @ params["b"], gated.max(1), jnp.clip(gated.min(1), 0.1, 0.9)

    params = {"a": normal(4, 6).at[:, jnp.array([1, 4])].set(0.0), "c": normal(6), "s": normal(3, 2), "b": normal(6, 2)}
    small = td.compact(apply, params, normal(2, 5, 4))
    assert_equal(apply, params, small, normal(2, 5, 4))
    assert_equal(apply, params, small, normal(3, 7, 4))
    assert "frozen" not in small.summary


@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5)])
def test_trap_a_constant_is_no_part_of_a_bias_along_another_axis(shape):
    """A bias by position, of as many positions as there are units."""
    apply = lambda params, x: jax.nn.relu(x @ params["w"] + 1) @ params["o"] + params["place"][:, None]  # noqa: E731
    params = {"w": normal(5, 8).at[:, 3].set(0.0), "o": normal(8, 6), "place": normal(6)}
    small = td.compact(apply, params, normal(*shape))
    assert not small.plan["folded"] and shapes(small)["w"] == (5, 7)
    assert_equal(apply, params, small, normal(*shape))
    along = lambda params, x: jax.nn.relu(x @ params["w"] + 1) @ params["o"] + params["place"].reshape(1, 6)  # noqa: E731
    small = td.compact(along, params, normal(*shape))
    assert small.plan["folded"]
    assert_equal(along, params, small, normal(*shape))


def test_stacks_tiles_and_hints_to_the_compiler_lose_units():
    mesh = jax.make_mesh((1,), ("x",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def apply(params, x):
        hidden = checkpoint_name(jax.nn.relu(x @ params["w"] + params["b"]), "hidden")
        hidden = lax.with_sharding_constraint(lax.optimization_barrier(hidden), whole)
        hidden = jax.grad(lambda hidden: jnp.sum(hidden * jnp.sin(hidden)))(hidden)  # which adds two cotangents
        both = jnp.stack([hidden[:, ::2], -hidden[:, 1::2]], axis=-1).reshape(hidden.shape)  # as rotary embeddings do
        token = jnp.concatenate([jnp.tile(params["token"], (len(x), 1)), both], axis=1)
        first, *_ = jnp.unstack(token.reshape(len(x), 2, -1), axis=1)
        return token @ params["o"], first

    params = {"w": normal(5, 8).at[:, 2:4].set(0.0), "b": normal(8), "token": normal(1, 4), "o": normal(12, 3)}
    small = td.compact(apply, params, normal(2, 5))
    assert "frozen" not in small.summary and shapes(small)["w"] == (5, 6)
    assert_equal(apply, params, small, normal(4, 5))


def test_a_choice_of_platforms_without_a_default_is_left_whole():
    choose = lambda x: lax.platform_dependent(x, cpu=jnp.tanh, cuda=jnp.tanh)  # noqa: E731
    apply = lambda params, x: choose(x @ params["w"]) @ params["o"]  # noqa: E731
    params = {"w": normal(5, 8).at[:, 3].set(0.0), "o": normal(8, 6)}
    small = td.compact(apply, params, normal(2, 5))
    assert "frozen: cond has no rule" in small.summary
    assert_equal(apply, params, small, normal(2, 5))


def test_products_with_batch_axes_lose_heads_slice_by_slice():
    apply = lambda params, x: jnp.einsum("nhd,hde->nhe", jnp.einsum("ni,ihd->nhd", x, params["a"]), params["b"])  # noqa: E731
    params = {"a": normal(3, 4, 5).at[:, 1].set(0.0).at[..., 2].set(0.0), "b": normal(4, 5, 2)}
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(6, 3))
    assert math.prod(shapes(small)["a"]) == 3 * 3 * 4 and shapes(small)["b"] == (3, 4, 2)


def test_grouped_convolutions_lose_whole_groups():
    def apply(params, images):
        settings = {"dimension_numbers": DIMENSIONS, "feature_group_count": 3}
        hidden = lax.conv_general_dilated(images @ params["a"], params["b"], (1, 1), "SAME", **settings)
        return hidden.mean((1, 2)) @ params["c"]

    params = {"a": normal(2, 6).at[:, 2:4].set(0.0), "b": normal(3, 3, 2, 9), "c": normal(9, 2)}
    small = td.compact(apply, params, normal(2, 5, 5, 2))
    assert_equal(apply, params, small, normal(2, 5, 5, 2))
    assert shapes(small) == {"a": (2, 4), "b": (3, 3, 2, 6), "c": (6, 2)}


def transposed(params, images):
    hidden = lax.conv_general_dilated(images, params["a"], (1, 1), "SAME", dimension_numbers=DIMENSIONS)
    return lax.conv_transpose(jnp.exp(hidden), params["b"], (2, 2), "SAME", dimension_numbers=DIMENSIONS)


def dilated(params, images):
    settings = {"rhs_dilation": (1, 2), "dimension_numbers": DIMENSIONS}
    hidden = lax.conv_general_dilated(images, params["a"], (2, 1), [(2, 1), (0, 3)], **settings)
    return lax.conv_general_dilated(jnp.exp(hidden), params["b"], (1, 1), "SAME", **settings)


def layer_norm(params, x):
    hidden = x @ params["a"] + params["c"]
    centred = hidden - hidden.mean(-1, keepdims=True)
    return jnp.tanh(centred * lax.rsqrt(hidden.var(-1, keepdims=True) + 1e-6)) @ params["b"]


def experts(params, x):
    return jnp.einsum("eih,eho->eo", jnp.einsum("bi,eih->ebh", x, params["a"]), params["b"])


def recurrent(params, x):
    def step(state, now):
        state = jnp.tanh(now + state @ params["u"])
        return state, state

    first = jnp.tanh(x @ params["a"] + params["c"]).swapaxes(0, 1)
    return lax.scan(step, jnp.zeros((len(x), 4)), first @ params["b"])


def divided_by_size(params, images):
    return (jnp.tanh(images @ params["a"] + params["c"]) / images.shape[1]).mean((1, 2)) @ params["b"]


def passed_on(params, x):
    return x, params["c"], params["a"] * 0, 1.0


A, C = normal(3, 4).at[:, 1:3].set(0.0), normal(4)
MAP = normal(3, 3, 3, 4).at[..., 1:3].set(0.0)
CASES = [  # function, params, inputs, shapes left
    (transposed, {"a": MAP, "b": normal(3, 3, 4, 2)}, (2, 5, 5, 3), {"a": (3, 3, 3, 2), "b": (3, 3, 2, 2)}),
    (dilated, {"a": MAP, "b": normal(3, 3, 4, 2)}, (2, 7, 7, 3), {"a": (3, 3, 3, 2), "b": (3, 3, 2, 2)}),
    (layer_norm, {"a": A, "c": C, "b": normal(4, 2)}, (2, 3), {"a": (3, 2), "c": (2,), "b": (4, 2)}),
    (experts, {"a": normal(2, 3, 4), "b": normal(2, 4, 2).at[1].set(0.0)}, (2, 3), {"a": (1, 3, 4), "b": (1, 4, 2)}),
    (recurrent, {"a": A, "c": C, "b": normal(4, 4), "u": normal(4, 4)}, (2, 6, 3), {"a": (3, 2), "b": (2, 4)}),
    (divided_by_size, {"a": A, "c": C, "b": normal(4, 2)}, (2, 4, 4, 3), {"a": (3, 2)}),
    (passed_on, {"a": A, "c": C}, (2, 3), {"a": (3, 4), "c": (4,)}),
]


@pytest.mark.parametrize(("apply", "params", "size", "left"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_other_functions(apply, params, size, left):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    small = td.compact(apply, params, normal(*size))
    assert_equal(apply, params, small, normal(*size))
    assert_equal(apply, params, small, normal(*(n if a == len(size) - 1 else n + 2 for a, n in enumerate(size))))
    assert {path: shape for path, shape in shapes(small).items() if path in left} == left


def test_half_precision_computes_constants_in_full_and_zeros_exactly():
    def apply(params, x):
        low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        return jax.nn.relu(x.astype(jnp.bfloat16) @ low["a"] + low["c"]) @ low["b"]

    params = {"a": normal(3, 6).at[:, :3].set(0.0), "b": normal(6, 2), "c": normal(6)}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(2, 3), tolerance=0.02)
    assert shapes(small) == {"a": (3, 3), "b": (3, 2), "c": (3,)}
    exact = jax.nn.relu(normal(2, 3) @ params["a"] + params["c"]) @ params["b"]
    np.testing.assert_allclose(small.apply(small.params, normal(2, 3)).astype(float), exact, atol=0.05)


def test_norms_by_the_statistics_of_a_batch_leave_their_bias():
    def apply(params, x):
        hidden = x @ params["a"]
        hidden = (hidden - hidden.mean(0)) * lax.rsqrt(hidden.var(0) + 1e-3) * params["scale"] + params["bias"]
        return jnp.tanh(hidden) @ params["b"]

    params = {"a": normal(3, 6).at[:, :2].set(0.0), "b": normal(6, 2), "scale": normal(6), "bias": normal(6)}
    small = td.compact(apply, params, normal(4, 3))
    assert_equal(apply, params, small, normal(9, 3))
    assert shapes(small) == {"a": (3, 4), "b": (4, 2), "scale": (4,), "bias": (4,)}


def test_trap_random_numbers_and_integers_among_the_params():
    def apply(params, x):
        hidden = x @ params["a"] + jax.random.normal(params["key"], (4,)) + params["steps"]
        return hidden @ params["b"]

    params = {"a": normal(3, 4).at[:, :2].set(0.0), "b": normal(4, 2).at[1:3].set(0.0)}
    params |= {"key": jax.random.key(0), "steps": jnp.int32(3)}
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(5, 3))
    assert shapes(small)["a"] == (3, 1)


def test_a_registered_rule_compacts_through_a_primitive_of_your_own(monkeypatch):
    halved = core.Primitive("halved")
    halved.def_impl(lambda x: x / 2)
    halved.def_abstract_eval(lambda x: x)
    mlir.register_lowering(halved, mlir.lower_fun(lambda x: x / 2, multiple_results=False))
    apply = lambda params, x: halved.bind(x @ params["w"] + params["c"]) @ params["o"]  # noqa: E731
    params = {"w": normal(5, 8).at[:, 3:].set(0.0), "c": normal(8), "o": normal(8, 6)}
    assert "frozen: halved has no rule" in td.compact(apply, params, normal(2, 5)).summary

    monkeypatch.setitem(rules.RULES, "halved", FROZEN)  # removed after the test
    rules.register_rule("halved", rules.RULES["neg"])
    small = td.compact(apply, params, normal(2, 5))
    assert_equal(apply, params, small, normal(3, 5))
    assert "frozen" not in small.summary and shapes(small) == {"w": (5, 3), "c": (3,), "o": (3, 6)}
