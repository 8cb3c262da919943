"""Groups and heads as entries: scores, masks and rates by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_network, small_structure, small_tree

import td
from td._entries import entries_of


def stream(params, x):
    """Two branches that write to one stream of four channels, which a norm with its mean reads."""
    h = x @ params["first"]
    h = h + jax.nn.relu(h @ params["up"]) @ params["down"] + params["bias"]
    normed = (h - h.mean(-1, keepdims=True)) * params["scale"] + params["offset"]
    return normed @ params["logits"]


def stream_params():
    rows = {"first": [1.0, 2.0, 3.0, 4.0], "down": [4.0, 1.0, 1.0, 2.0]}
    return {
        "first": jnp.array([rows["first"]]),
        "up": jnp.ones((4, 3)),
        "down": jnp.zeros((3, 4)).at[0].set(jnp.array(rows["down"])),
        "bias": jnp.ones(4),
        "scale": jnp.ones(4),
        "offset": jnp.ones(4),
        "logits": jnp.ones((4, 2)),
    }


STREAM = td.trace(stream, stream_params(), jnp.ones((1, 1)))


def attention(params, x):
    """Two heads of three, each with a query, a key and a value."""
    h = x @ params["first"]
    q, k, v = (jnp.einsum("td,dhe->hte", h, params[name]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("hqe,hke->hqk", q, k))
    return jnp.einsum("hqk,hke,hed->qd", weights, v, params["out"]) @ params["logits"]


def attention_params():
    keys = iter(jax.random.split(jax.random.key(0), 9))
    shapes = {"first": (2, 4), **dict.fromkeys("qkv", (4, 2, 3)), "out": (2, 3, 5), "logits": (5, 2)}
    return {name: jax.random.normal(next(keys), shape) for name, shape in shapes.items()}


HEADS = td.trace(attention, attention_params(), jnp.ones((6, 2)))


def test_a_score_is_the_mean_of_the_norms_each_over_its_kernels_mean():
    scores = entries_of(stream_params(), "group", STREAM).saliencies()
    first, down = np.array([1, 2, 3, 4]) / 2.5, np.array([4, 1, 1, 2]) / 2
    np.testing.assert_allclose(scores["down/groups"][0, 0], (first + down) / 2, rtol=1e-6)
    np.testing.assert_allclose(scores["up/groups"], np.ones((1, 1, 3)), rtol=1e-6)


def test_a_group_goes_with_all_that_makes_it():
    params = stream_params()
    mask = td.prune_mask(params, {"down": 0.5}, "group", kernels=STREAM)
    scores = (np.array([1, 2, 3, 4]) / 2.5 + np.array([4, 1, 1, 2]) / 2) / 2
    kept = scores > np.sort(scores)[1]
    for name in ("first", "down"):
        assert (mask[name] == np.broadcast_to(kept, params[name].shape)).all()
    for name in ("bias", "scale", "offset"):
        assert (mask[name] == kept).all()
    assert mask["up"].all() and mask["logits"].all()


def test_without_offsets_biases_stay_and_the_scale_of_a_norm_with_a_mean_goes():
    mask = td.prune_mask(stream_params(), {"down": 0.5}, "group", kernels=STREAM, offsets=False)
    assert mask["bias"].all() and mask["offset"].all() and mask["scale"].sum() == 2


def test_what_a_group_leaves_is_removed():
    params = stream_params()
    pruned = td.apply_mask(params, td.prune_mask(params, {"down": 0.5}, "group", kernels=STREAM))
    small = td.compact(stream, pruned, jnp.ones((1, 1))).params.params
    assert {name: leaf.shape for name, leaf in small.items() if leaf.ndim == 2} == {
        "first": (1, 2),
        "up": (2, 1),  # the other rows of `down` are zero
        "down": (1, 2),
        "logits": (2, 2),
    }


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_counts_are_exact(rate):
    mask = td.prune_mask(small_tree(), rate, "group", kernels=small_structure())
    conv, (dense, _) = mask["block"]
    assert int((~conv["kernel"][0, 0, 0]).sum()) == int(6 * rate)
    assert int((~dense["kernel"][0]).sum()) == int(8 * rate)
    assert mask["stem"]["kernel"].all() and mask["logits"]["kernel"].all()


def test_heads_go_whole_and_in_every_kernel():
    params = attention_params()
    mask = td.prune_mask(params, 0.5, "head", kernels=HEADS)
    gone = {name: np.flatnonzero(~np.asarray(mask[name]).any((0, 2))).tolist() for name in "qkv"}
    assert gone["q"] == gone["k"] == gone["v"] and len(gone["q"]) == 1
    small = td.compact(attention, td.apply_mask(params, mask), jnp.ones((6, 2)))
    assert small.params.params["v"].shape == (4, 1, 3) and small.params.params["q"].shape == (4, 1, 3)


def test_groups_are_ranked_inside_each_head():
    mask = td.prune_mask(attention_params(), 0.34, "group", kernels=HEADS)
    assert [int((~mask["v"][0, head]).sum()) for head in range(2)] == [1, 1]
    assert (mask["q"] == mask["k"]).all()


def test_dropped_groups_get_no_gradient_and_are_drawn_together():
    params, transform = stream_params(), td.targeted("group", 1.0, 0.5, kernels=STREAM)

    def loss(params, key):
        seen, _ = transform.apply(params, td.MaskVars(), key=key, step=0)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(seen)), seen

    for seed in range(4):
        gradient, seen = jax.grad(loss, has_aux=True)(params, jax.random.key(seed))
        dropped = np.asarray(seen["first"][0] == 0)
        for name in ("down", "bias", "scale"):
            assert (np.asarray(seen[name][..., :]).reshape(-1, 4)[0] == 0).tolist() == dropped.tolist()
            assert not np.asarray(gradient[name]).reshape(-1, 4)[:, dropped].any()


def test_limit_full_drop_rate_is_pruning():
    params, transform = small_tree(), td.targeted("group", 0.5, 1.0, kernels=small_structure())
    dropped, _ = transform.apply(params, td.MaskVars(), key=jax.random.key(0), step=0)
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=small_structure()))
    for one, other in zip(jax.tree.leaves(dropped), jax.tree.leaves(pruned), strict=True):
        np.testing.assert_array_equal(one, other)


def test_group_lasso_by_hand():
    penalty = td.masks.group_lasso(1.0, over="group", kernels=STREAM).penalty(stream_params(), (), 0)
    squares = np.array([1 + 16, 4 + 1, 9 + 1, 16 + 4])  # of the columns in first (1 row) and down (3 rows)
    assert float(penalty) == pytest.approx(2 * np.sqrt(squares).sum() + 3 * np.sqrt(4) * np.sqrt(4), rel=1e-6)


def test_masks_of_groups_are_fixed_for_fine_tuning():
    params, structure = small_tree(), small_structure()
    mask = td.prune_mask(params, 0.5, "group", kernels=structure)
    transform = td.masks.fixed_masks("group", kernels=structure)
    mask_vars = td.masks.as_mask_vars(mask, params, "group", kernels=transform)
    seen, _ = transform.apply(params, mask_vars, key=None, step=0)
    for one, other in zip(jax.tree.leaves(seen), jax.tree.leaves(td.apply_mask(params, mask)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_trap_groups_need_the_structure():
    with pytest.raises(td.UserError, match="td.trace"):
        td.prune_mask(small_tree(), 0.5, "group")


def test_trap_other_params_than_those_traced():
    with pytest.raises(td.UserError, match="traced with other params"):
        td.prune_mask({"block": jnp.ones((2, 2))}, 0.5, kernels=small_structure())


def test_trap_a_rate_that_matches_nothing():
    with pytest.raises(td.UserError, match="matches nothing"):
        td.prune_mask(small_tree(), {"blok": 0.5}, "group", kernels=small_structure())


def test_one_program_for_all_rates():
    traced, structure = [], small_structure()
    prune = jax.jit(lambda rate: traced.append(1) or td.prune_mask(small_tree(), rate, "group", kernels=structure))
    for rate in (0.1, 0.5):
        prune(jnp.float32(rate))
    assert len(traced) == 1


def test_the_network_of_the_small_tree_runs():
    assert small_network(small_tree(), jnp.ones((2, 4, 4, 1))).shape == (2, 5)


def test_trap_a_network_without_heads():
    with pytest.raises(td.UserError, match="has no head"):
        td.prune_mask(small_tree(), 0.5, "head", kernels=small_structure())


def grouped_norm(params, x):
    """A norm of four groups of two, as Flax writes it: the scale meets the deviation before the units."""
    h = x @ params["first"]
    parts = h.reshape(-1, 4, 2)
    mean, square = (jnp.repeat(part.mean(-1), 2, axis=-1) for part in (parts, parts**2))
    return ((h - mean) * (jax.lax.rsqrt(square - mean**2 + 1e-3) * params["scale"]) + params["offset"]) @ params["last"]


def test_a_norm_of_groups_shrinks_with_its_units():
    params = {"first": jax.random.normal(jax.random.key(0), (3, 8)), "last": jnp.ones((8, 2))}
    params |= {"scale": jnp.ones(8), "offset": jnp.ones(8)}
    structure = td.trace(grouped_norm, params, jnp.ones((2, 3)), include=("first",))
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=structure))
    small = td.compact(grouped_norm, pruned, jnp.ones((2, 3)))
    assert small.params.params["last"].shape == (4, 2)
