"""Compaction: equal outputs on every network, sizes counted by hand, what is frozen, plans, rounded widths."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import DIMENSIONS, assert_equal, counted, normal, pruned, shapes
from jax import lax

import td

pytestmark = pytest.mark.usefixtures("in_float64")


NETWORKS = {
    "mlp": ({"name": "mlp"}, (2, 4, 4, 3), [(3, 4, 4, 3)]),
    "resnet": (
        {"name": "resnet", "stage_sizes": (2, 1), "widths": (4, 8), "stem_width": 4},
        (2, 8, 8, 3),
        [(1, 12, 10, 3)],
    ),
    "vgg": ({"name": "vgg", "stages": ((4, 4), (8,)), "hidden_units": (8, 8)}, (2, 8, 8, 3), [(3, 8, 8, 3)]),
    "wide": ({"name": "wide_resnet", "depth": 10, "width": 1}, (2, 8, 8, 3), [(1, 16, 12, 3)]),
    "resnet18": ({"name": "large_resnet", "depth": 18, "width": 4}, (2, 32, 32, 3), [(1, 64, 32, 3)]),
    "bottleneck": ({"name": "large_resnet", "depth": 26, "width": 2}, (2, 32, 32, 3), []),
}
SLOW = ("wide", "resnet18", "bottleneck")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETWORKS])
def test_networks_for_images_give_equal_outputs_at_other_sizes(name):
    network, shape, others = NETWORKS[name]
    apply, params = pruned(network, normal(*shape))
    small = td.compact(apply, params, normal(*shape), keep="smallest")
    for seed, size in enumerate([shape, *others]):
        assert_equal(apply, params, small, normal(*size, seed=seed))
    assert counted(small) < 0.65 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert "frozen" not in small.summary


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
    assert values.sum() == 4 and "frozen" not in small.summary


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


def test_trap_an_operation_without_a_rule_is_left_whole_and_named():
    unknown = lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + b * b, (1, 2), (1, 1), "SAME")  # noqa: E731
    apply = lambda params, x: unknown(jax.nn.relu(x @ params["a"] + params["c"])) @ params["b"]  # noqa: E731
    params = {"a": normal(3, 6).at[:, 2:4].set(0.0), "b": normal(6, 2), "c": normal(6) + 2}
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(5, 3))
    assert "frozen: reduce_window has no rule" in small.summary and shapes(small)["b"] == (6, 2)
    assert shapes(small)["a"] == (3, 4)  # what is constant before it is put in again


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_trap_params_that_are_not_finite_are_refused(broken):
    with pytest.raises(td.UserError, match="'a' has NaN or infinity"):
        td.compact(lambda params, x: x @ params["a"], {"a": jnp.array([[broken]])}, normal(2, 1))


def test_gradients_reach_what_is_left():
    params = chain_params()
    small = td.compact(chain, params, normal(2, 9, 9, 3))
    images = normal(2, 9, 9, 3)
    assert_equal(chain, params, small, images)
    whole = jax.grad(lambda params: chain(params, images).sum())(params)
    part = jax.grad(lambda params: small.apply(params, images).sum())(small.params).params
    np.testing.assert_allclose(part["a"], whole["a"][..., 1::2], rtol=1e-8)
    np.testing.assert_allclose(part["c_scale"], whole["c_scale"][1::2], rtol=1e-8)
    np.testing.assert_allclose(part["c"], whole["c"][:, :, 1::2, 1::2], rtol=1e-8)


def test_trap_the_derivative_of_relu_at_zero_stays_zero():
    apply = lambda params, x: jax.nn.relu(x @ params["a"])  # noqa: E731
    params = {"a": normal(3, 2)}
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(2, 3))
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
        with pytest.raises(td.UserError, match="something else"):
            small.apply(small.params, normal(*unseen))


@pytest.mark.parametrize("maps", [1, 8])
def test_trap_convolutions_rewritten_for_cpus_are_still_seen(monkeypatch, maps):
    from td.models import layers

    monkeypatch.setattr(layers, "CACHED", 1)  # maps of 8x8 and more are rewritten whatever their number
    where = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "dimension_numbers": DIMENSIONS}

    def apply(params, images):
        hidden = images
        for name in ("a", "b"):
            hidden = jnp.tanh(
                layers.convolve(hidden, params[name], *list(where.values())[:2], dimension_numbers=DIMENSIONS)
            )
        return hidden

    images = normal(2, maps, maps, 3).astype(jnp.float32)
    params = {"a": normal(3, 3, 3, 6).at[..., :2].set(0.0), "b": normal(3, 3, 6, 4)}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    small = td.compact(apply, params, images)
    assert_equal(apply, params, small, images, tolerance=1e-5)
    assert shapes(small) == {"a": (3, 3, 3, 4), "b": (3, 3, 4, 4)} and "frozen" not in small.summary
