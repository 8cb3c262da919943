"""Compaction: equal outputs on every network, sizes counted by hand, what is frozen, plans, rounded widths."""

import json
import math

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import DIMENSIONS, drawn_network, normal, pruned
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import td


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def assert_equal(apply, params, small, *inputs):
    expected, found = jax.jit(apply)(params, *inputs), small.apply(small.params, *inputs)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-10 * max(float(jnp.abs(one).max()), 1e-300))


def counted(small):
    return sum(leaf.size for leaf in jax.tree.leaves(small.params))


def shapes(small):
    return {path: leaf.shape for path, leaf in td.tree.named_leaves(small.params.params).items()}


NETWORKS = {
    "mlp": ({"name": "mlp"}, (2, 4, 4, 3), [(3, 4, 4, 3)]),
    "resnet": (
        {"name": "resnet", "stage_sizes": (2, 1), "widths": (4, 8), "stem_width": 4},
        (2, 8, 8, 3),
        [(3, 8, 8, 3), (1, 12, 10, 3)],
    ),
    "vgg": ({"name": "vgg", "stages": ((4, 4), (8,)), "hidden_units": (8, 8)}, (2, 8, 8, 3), [(3, 8, 8, 3)]),
    "wide": ({"name": "wide_resnet", "depth": 10, "width": 1}, (2, 8, 8, 3), [(3, 8, 8, 3), (1, 16, 12, 3)]),
    "resnet18": ({"name": "large_resnet", "depth": 18, "width": 4}, (2, 32, 32, 3), [(3, 32, 32, 3), (1, 64, 32, 3)]),
    "bottleneck": ({"name": "large_resnet", "depth": 50, "width": 2}, (2, 32, 32, 3), [(3, 32, 64, 3)]),
}
SLOW = ("wide", "resnet18", "bottleneck")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETWORKS])
def test_networks_for_images_give_equal_outputs_at_other_sizes(name):
    network, shape, others = NETWORKS[name]
    apply, params = pruned(network, normal(*shape))
    small = td.compact(apply, params, normal(*shape))
    for seed, size in enumerate([shape, *others]):
        assert_equal(apply, params, small, normal(*size, seed=seed))
    assert counted(small) < 0.65 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert "frozen" not in small.report


TRANSFORMER = {"name": "transformer", "layers": 1, "width": 12, "heads": 3, "hidden_units": 8}


def sentences(*shape):
    return jnp.asarray(np.random.default_rng(0).integers(0, 13, shape))


def test_a_transformer_loses_a_head_feed_forward_units_and_columns():
    apply, params = pruned(TRANSFORMER, sentences(2, 5), sentences(2, 4), classes=13)
    encoder = params["params"]["encoder_0"]
    for name in ("query", "key", "value"):
        kernel = encoder["self"][name]["kernel"]
        encoder["self"][name]["kernel"] = kernel.at[:, 4:8].set(0.0)  # the second of three heads
    small = td.compact(apply, params, sentences(2, 5), sentences(2, 4))
    assert_equal(apply, params, small, sentences(2, 5), sentences(2, 4))
    assert_equal(apply, params, small, sentences(3, 7), sentences(3, 6))
    left = shapes(small)
    values = np.asarray(encoder["self"]["value"]["kernel"]).any(0).reshape(3, 4)
    assert left["params/encoder_0/self/value/kernel"] == (12, values.sum())
    assert left["params/encoder_0/self/out/kernel"] == (values.sum(), 6)
    assert left["params/encoder_0/wide/kernel"] == (12, 4) and left["params/embed/embedding"] == (13, 12)
    assert values.sum() == 4 and "frozen" not in small.report


def chain(params, images):
    """Three convolutions without padding between norms and ReLUs, pooled."""
    hidden = images
    for name in ("a", "b", "c"):
        hidden = lax.conv_general_dilated(hidden, params[name], (1, 1), "VALID", dimension_numbers=DIMENSIONS)
        hidden = jax.nn.relu((hidden - params[f"{name}_mean"]) * params[f"{name}_scale"] + params[f"{name}_bias"])
    return hidden.mean((1, 2)) @ params["logits"] + params["bias"]


def chain_params():
    widths, params = {"a": (3, 8), "b": (8, 6), "c": (6, 4)}, {"logits": normal(4, 2), "bias": normal(2)}
    parts = ("mean", "scale", "bias")
    for seed, (name, width) in enumerate(widths.items()):
        params |= {f"{name}_{part}": normal(width[1], seed=seed + i) for i, part in enumerate(parts)}
        params[name] = normal(3, 3, *width, seed=seed).at[..., ::2].set(0.0)
    return params


def test_a_chain_of_convolutions_is_as_small_as_counted_by_hand():
    params = chain_params()
    small = td.compact(chain, params, normal(2, 9, 9, 3))
    assert_equal(chain, params, small, normal(2, 9, 9, 3))
    assert_equal(chain, params, small, normal(1, 12, 10, 3))
    # Half of 8, 6 and 4 units; each unit has a mean, a scale and a bias; nothing pads, so no constant is left over.
    assert counted(small) == 9 * (3 * 4 + 4 * 3 + 3 * 2) + 3 * (4 + 3 + 2) + 2 * 2 + 2
    assert small.params.constants == {}


def padded_block(params, images):
    """A residual block whose convolutions pad."""
    conv = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=DIMENSIONS)  # noqa: E731
    stream = conv(images, params["stem"])
    hidden = jax.nn.relu(conv(stream, params["first"]) + params["bias"])
    return (stream + conv(hidden, params["second"])).mean((1, 2)) @ params["logits"]


def block_params():
    params = {"stem": normal(3, 3, 3, 6), "first": normal(3, 3, 6, 8, seed=1), "second": normal(3, 3, 8, 6, seed=2)}
    params |= {"bias": normal(8, seed=3), "logits": normal(6, 2, seed=4)}
    params["first"] = params["first"].at[..., 4:].set(0.0)
    params["second"] = params["second"].at[..., :3].set(0.0)
    return params


def test_a_residual_block_is_as_small_as_counted_by_hand():
    params = {**block_params(), "bias": normal(8).at[4:].set(-1.0)}  # dead units give 0 after the ReLU
    small = td.compact(padded_block, params, normal(2, 6, 6, 3))
    assert_equal(padded_block, params, small, normal(2, 6, 6, 3))
    assert_equal(padded_block, params, small, normal(3, 7, 5, 3))
    assert counted(small) == 9 * (3 * 6 + 6 * 4 + 4 * 3) + 4 + 6 * 2


def test_constants_that_meet_padding_become_one_input_channel():
    params = {**block_params(), "bias": normal(8).at[4:].set(2.0)}
    small = td.compact(padded_block, params, normal(2, 6, 6, 3))
    assert_equal(padded_block, params, small, normal(2, 6, 6, 3))
    assert_equal(padded_block, params, small, normal(3, 7, 5, 3))
    # Writers of the stream are three channels wide. The others now carry a map: all of them take the extra channel.
    assert {key.partition("/")[2]: array.shape for key, array in small.params.constants.items()} == {
        "ones": (3, 3, 1, 3)
    }
    assert shapes(small)["second"] == (3, 3, 4, 3)


def test_flattened_maps_are_as_small_as_counted_by_hand():
    def apply(params, images):
        hidden = lax.conv_general_dilated(images, params["conv"], (1, 1), "SAME", dimension_numbers=DIMENSIONS)
        hidden = jax.nn.relu(hidden + params["bias"])
        return jax.nn.relu(hidden.reshape(len(images), -1) @ params["dense"] + params["dense_bias"]) @ params["logits"]

    params = {"conv": normal(3, 3, 2, 4).at[..., 1].set(0.0), "bias": normal(4), "dense_bias": normal(6)}
    params |= {"dense": normal(5 * 5 * 4, 6).at[:, :2].set(0.0), "logits": normal(6, 3)}
    small = td.compact(apply, params, normal(2, 5, 5, 2))
    assert_equal(apply, params, small, normal(2, 5, 5, 2))
    assert_equal(apply, params, small, normal(4, 5, 5, 2))
    kept = 9 * 2 * 3 + 3 + 5 * 5 * 3 * 4 + 4 + 4 * 3
    moved = 3  # what the two dead units give the logits, which have no bias to take it
    assert counted(small) == kept + moved
    with pytest.raises(Exception, match="dot_general"):
        small.apply(small.params, normal(2, 6, 6, 2))


def test_an_emptied_layer_leaves_a_constant():
    apply = lambda params, x: jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"] + params["c"]) + 0 * x[:, :1]  # noqa: E731
    params = {"a": normal(3, 4), "b": jnp.zeros((4, 5)), "c": normal(5)}
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(7, 3))
    assert shapes(small)["a"] == (3, 0) and shapes(small)["b"] == (4, 0)


@pytest.mark.parametrize("unknown", [jnp.sort, jnp.cumsum])
def test_trap_an_operation_without_a_rule_is_left_whole_and_named(unknown):
    apply = lambda params, x: unknown(jax.nn.relu(x @ params["a"] + params["c"]), axis=-1) @ params["b"]  # noqa: E731
    params = {"a": normal(3, 6).at[:, 2:4].set(0.0), "b": normal(6, 2), "c": normal(6) + 2}
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(5, 3))
    assert f"frozen: {unknown.__name__} has no rule" in small.report and shapes(small)["b"] == (6, 2)
    assert shapes(small)["a"] == (3, 4)  # what is constant before it is put in again


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_trap_params_that_are_not_finite_are_refused(broken):
    with pytest.raises(td.UserError, match="'a' has NaN or infinity"):
        td.compact(lambda params, x: x @ params["a"], {"a": jnp.array([[broken]])}, normal(2, 1))


def test_gradients_reach_what_is_left():
    params = chain_params()
    small = td.compact(chain, params, normal(2, 9, 9, 3))
    images = normal(2, 9, 9, 3)
    whole = jax.grad(lambda params: chain(params, images).sum())(params)
    part = jax.grad(lambda params: small.apply(params, images).sum())(small.params).params
    np.testing.assert_allclose(part["a"], whole["a"][..., 1::2], rtol=1e-8)
    np.testing.assert_allclose(part["c_scale"], whole["c_scale"][1::2], rtol=1e-8)
    np.testing.assert_allclose(part["c"], whole["c"][:, :, 1::2, 1::2], rtol=1e-8)


def test_trap_the_derivative_of_relu_at_zero_stays_zero():
    apply = lambda params, x: jax.nn.relu(x @ params["a"])  # noqa: E731
    small = td.compact(apply, {"a": normal(3, 2)}, normal(2, 3))
    gradient = jax.grad(lambda x: small.apply(small.params, x).sum())(jnp.zeros((2, 3)))
    assert not gradient.any()


def test_shared_leaves_keep_the_union_and_are_cut_once():
    def apply(params, tokens):
        hidden = params["table"][tokens] @ params["mix"]
        return jnp.tanh(hidden) @ params["table"].T

    params = {"table": normal(7, 6), "mix": normal(6, 6).at[:, :4].set(0.0).at[:3].set(0.0)}
    small = td.compact(apply, params, sentences(2, 3) % 7)
    assert_equal(apply, params, small, sentences(4, 5) % 7)
    assert shapes(small) == {"mix": (3, 2), "table": (7, 3)}  # columns 3, 4, 5 to mix, 4 and 5 for the logits


def test_widths_are_rounded_up_to_multiples_with_the_strongest_first():
    apply = lambda params, x: jax.nn.relu(x @ params["a"] + params["c"]) @ params["b"]  # noqa: E731
    params = {"a": normal(3, 32).at[:, 5:].set(0.0), "b": normal(32, 2), "c": normal(32)}
    small = td.compact(apply, params, normal(2, 3), round_to=8)
    assert_equal(apply, params, small, normal(2, 3))
    assert shapes(small) == {"a": (3, 8), "b": (8, 2), "c": (8,)}
    apply, params = pruned(*NETWORKS["vgg"][:1], normal(2, 8, 8, 3), rate=0.6)
    small = td.compact(apply, params, normal(2, 8, 8, 3), round_to=2)
    assert_equal(apply, params, small, normal(2, 8, 8, 3))
    units = [s[-1] for path, s in shapes(small).items() if path.startswith("params/") and path.endswith("kernel")]
    assert all(width % 2 == 0 or width == 3 for width in units)


def test_a_plan_is_json_and_is_repeated_on_other_params():
    params = block_params()
    plan = json.loads(json.dumps(td.compact(padded_block, params, normal(2, 6, 6, 3), round_to=2).plan))
    other = jax.tree.map(lambda leaf: 3 * leaf, params)
    again = td.apply_plan(padded_block, other, plan, normal(2, 6, 6, 3))
    assert_equal(padded_block, other, again, normal(2, 6, 6, 3))
    assert plan["leaves"]["first"] == {"shape": [3, 3, 6, 8], "kept": {"3": [0, 1, 2, 3]}}
    with pytest.raises(td.UserError, match="zeros"):
        td.apply_plan(padded_block, {**params, "first": normal(3, 3, 6, 8)}, plan, normal(2, 6, 6, 3))
    with pytest.raises(td.UserError, match="another function"):
        td.apply_plan(lambda params, x: jnp.tanh(padded_block(params, x)), params, plan, normal(2, 6, 6, 3))
    with pytest.raises(td.UserError, match="other names or shapes"):
        td.apply_plan(padded_block, {**params, "bias": normal(9)}, plan, normal(2, 6, 6, 3))


def test_trap_a_sum_over_the_image_is_no_constant_at_another_size():
    def apply(params, images):
        hidden = jnp.tanh(images @ params["a"] + params["c"])  # [batch, height, width, 4]
        return hidden.sum((1, 2)) @ params["b"] + hidden.mean((1, 2)) @ params["b"]

    params = {"a": normal(3, 4).at[:, :2].set(0.0), "b": normal(4, 2), "c": normal(4)}
    small = td.compact(apply, params, normal(2, 4, 4, 3))
    assert_equal(apply, params, small, normal(2, 6, 5, 3))


def test_trap_a_pooling_that_pads_at_another_size_only_is_refused():
    def apply(params, images):
        hidden = images @ params["a"] + params["c"]
        hidden = lax.conv_general_dilated(hidden, params["b"], (2, 2), "SAME", dimension_numbers=DIMENSIONS)
        return hidden.mean((1, 2))

    params = {"a": normal(3, 4).at[..., 1:].set(0.0), "b": normal(2, 2, 4, 3), "c": normal(4)}
    small = td.compact(apply, params, normal(2, 4, 4, 3))
    assert_equal(apply, params, small, normal(2, 8, 6, 3))
    with pytest.raises(td.UserError, match="pads"):
        small.apply(small.params, normal(2, 5, 5, 3))


def test_trap_numbers_and_windows_that_depend_on_sizes_not_seen_are_refused():
    params = {"a": normal(3, 4).at[..., 1:].set(0.0), "c": normal(4), "b": normal(4, 2)}

    def number(params, x):
        return (jnp.tanh(x @ params["a"] + params["c"]) * min(len(x), 4)) @ params["b"]

    def window(params, images):
        hidden = jnp.tanh(images @ params["a"] + params["c"])
        size = (1, images.shape[1] // 8 or 1, 1, 1)
        return lax.reduce_window(hidden, 0.0, lax.add, size, (1, 1, 1, 1), "VALID").mean((1, 2)) @ params["b"]

    for apply, seen, unseen in ((number, (4, 3), (2, 3)), (window, (2, 4, 4, 3), (2, 16, 4, 3))):
        small = td.compact(apply, params, normal(*seen))
        assert_equal(apply, params, small, normal(*seen))
        assert_equal(apply, params, small, normal(8, *seen[1:]))
        with pytest.raises(td.UserError, match="not seen|other equations"):
            small.apply(small.params, normal(*unseen))


@pytest.mark.parametrize("maps", [1, 8])
def test_trap_convolutions_rewritten_for_cpus_are_still_seen(monkeypatch, maps):
    from td.models import cpu_convolution

    monkeypatch.setattr(cpu_convolution, "CACHED", 1)  # maps of 8x8 and more are rewritten whatever their number
    where = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "dimension_numbers": DIMENSIONS}

    def apply(params, images):
        hidden = images
        for name in ("a", "b"):
            hidden = jnp.tanh(
                cpu_convolution.convolve(hidden, params[name], *list(where.values())[:2], dimension_numbers=DIMENSIONS)
            )
        return hidden

    images = normal(2, maps, maps, 3).astype(jnp.float32)
    params = {"a": normal(3, 3, 3, 6).at[..., :2].set(0.0), "b": normal(3, 3, 6, 4)}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    small = td.compact(apply, params, images)
    np.testing.assert_allclose(small.apply(small.params, images), apply(params, images), atol=1e-5)
    assert shapes(small) == {"a": (3, 3, 3, 4), "b": (3, 3, 4, 4)} and "frozen" not in small.report


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
    assert "frozen" not in small.report


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
    assert (
        shapes(small) == {"a": (3, 3), "b": (3, 2), "c": (3,)}
        and small.apply(small.params, normal(2, 3)).dtype == jnp.bfloat16
    )
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


NAMES = ["conv", "depthwise", "norm", "sum", "product", "join", "max", "mean", "cut", "widen", "turn", "relu", "tanh"]
NAMES += ["conv", "conv", "norm", "norm", "relu", "sort"]
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-2, 19), st.integers(0, 19)), min_size=1, max_size=12)


def assert_drawn_equal(steps, seed, rate, round_to):
    apply, params = drawn_network(steps, seed, rate)
    small = td.compact(apply, params, normal(2, 6, 6, 3), round_to=round_to)
    assert_equal(apply, params, small, normal(2, 6, 6, 3))
    assert_equal(apply, params, small, normal(3, 6, 6, 3, seed=seed))


DRAWN = given(STEPS, st.integers(0, 99), st.sampled_from([0.0, 0.4, 0.8, 1.0]), st.sampled_from([1, 2]))


@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@DRAWN
def test_drawn_networks(steps, seed, rate, round_to):
    assert_drawn_equal(steps, seed, rate, round_to)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@DRAWN
def test_many_drawn_networks(steps, seed, rate, round_to):
    assert_drawn_equal(steps, seed, rate, round_to)
