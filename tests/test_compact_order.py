"""Pruned columns of heads at the same places: equal outputs, smaller kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_structure import NETWORKS

import td
from td import _tree


def half_dead(structure, params, seed=1):
    """Params without the columns of half of all groups, drawn."""
    rng, leaves = np.random.default_rng(seed), {}
    count = 1 + max((numbers.max() for numbers in structure.families.values()), default=-1)
    dead = np.append(rng.random(count) < 0.5, False)  # the last for what is in no group
    named = dict(zip(_tree.paths(params), jax.tree.leaves(params), strict=True))
    for path, groups in structure.units.items():
        leaves[path] = jnp.where(dead[groups], 0, named[path])
    return _tree.replace_leaves(params, leaves)


FAST = {"residual", "gated", "positions", "multi_query", "stacked_experts", "indexed"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in NETWORKS])
def test_outputs_stay(name):
    apply, params, inputs = NETWORKS[name]()
    rng = np.random.default_rng(0)
    inputs = [
        rng.normal(size=x.shape).astype(x.dtype) if x.dtype == jnp.float32 else x for x in map(jnp.asarray, inputs)
    ]
    structure = td.trace(apply, params, *inputs)
    pruned = half_dead(structure, params)
    small = td.compact(apply, pruned, *inputs, keep="smallest")
    both = apply(pruned, *inputs), small.apply(small.params, *inputs)
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4 * float(jnp.abs(one).max()))


def attention(params, x, angles=None, cache=None):
    """Two heads of four columns, with rotary positions where there are angles, and one cache of zeros."""
    h = x @ params["first"]
    q, k, v = (jnp.einsum("td,dhe->hte", h, params[name]) for name in "qkv")
    if cache is not None:
        k, v = (jax.lax.dynamic_update_slice(cache, new, (0, 1, 0)) for new in (k, v))
    if angles is not None:
        turn = lambda z: z * jnp.cos(angles) + jnp.roll(z, 2, -1) * jnp.sin(angles)  # noqa: E731
        q, k = turn(q), turn(k)
    weights = jax.nn.softmax(jnp.einsum("hqe,hke->hqk", q, k))
    return jnp.einsum("hqk,hke,hed->qd", weights, v, params["out"]) @ params["last"]


def drawn():
    shapes = {"first": (3, 6), **dict.fromkeys("qkv", (6, 2, 4)), "out": (2, 4, 6), "last": (6, 2)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def compacted(network):
    params, x = drawn(), jax.random.normal(jax.random.key(1), (5, 3))
    structure = td.trace(network, params, x)
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=structure))
    small = td.compact(network, pruned, x)
    np.testing.assert_allclose(small.apply(small.params, x), network(pruned, x), rtol=1e-4, atol=1e-5)
    return {name: leaf.shape for name, leaf in small.params.params.items()}


def test_columns_that_differ_from_head_to_head_are_removed():
    shapes = compacted(attention)
    assert shapes["q"] == shapes["k"] == shapes["v"] == (6, 2, 2) and shapes["out"] == (2, 2, 3)


def test_a_cache_of_zeros_that_keys_and_values_share_ties_no_columns():
    shapes = compacted(lambda params, x: attention(params, x, cache=jnp.zeros((2, 9, 4))))
    assert shapes["q"] == shapes["k"] == shapes["v"] == (6, 2, 2) and shapes["out"] == (2, 2, 3)


def test_trap_rotary_positions_keep_their_columns():
    angles = jnp.arange(5.0)[:, None] * jnp.array([1.0, 0.1, 1.0, 0.1])
    shapes = compacted(lambda params, x: attention(params, x, angles))
    assert shapes["v"] == (6, 2, 2) and shapes["q"] == shapes["k"] != shapes["v"]


def test_trap_rotary_positions_that_are_inputs_keep_their_columns():
    def network(params, x, positions):
        return attention(params, x, positions[:, None] * jnp.array([1.0, 0.1, 1.0, 0.1]))

    params, inputs = drawn(), (jax.random.normal(jax.random.key(1), (5, 3)), jnp.arange(5.0))
    structure = td.trace(network, params, *inputs)
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=structure))
    small = td.compact(network, pruned, *inputs)
    found = small.apply(small.params, *inputs)
    np.testing.assert_allclose(found, network(pruned, *inputs), rtol=1e-4, atol=1e-5)


def test_nothing_moves_where_nothing_is_pruned():
    params = drawn()
    assert td.compact(attention, params, jnp.ones((5, 3))).plan["moves"] == []


def experts(params, x):
    """Two experts of four hidden units, weighted by a gate."""
    h = x @ params["first"]
    gate = jax.nn.softmax(h @ params["gate"])
    hidden = jax.nn.relu(jnp.einsum("td,edm->tem", h, params["up"]))
    return jnp.einsum("tem,emd,te->td", hidden, params["down"], gate) @ params["last"]


def test_hidden_units_that_differ_from_expert_to_expert_are_removed_to_the_largest_count():
    shapes = {"first": (3, 6), "gate": (6, 2), "up": (2, 6, 4), "down": (2, 4, 6), "last": (6, 2)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    params["up"] = params["up"].at[0, :, jnp.array([0, 3])].set(0).at[1, :, 1].set(0)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    small = td.compact(experts, params, x)
    np.testing.assert_allclose(small.apply(small.params, x), experts(params, x), rtol=1e-4, atol=1e-5)
    assert small.params.params["up"].shape == (2, 6, 3) and small.params.params["down"].shape == (2, 3, 6)


@pytest.mark.slow
def test_units_that_differ_from_layer_to_layer_of_a_scan_are_removed_to_the_largest_count():
    def network(params, x):
        layer = lambda h, p: (h + jax.nn.relu(h @ p["up"]) @ p["down"], None)  # noqa: E731
        return jax.lax.scan(layer, x @ params["first"], params["layers"])[0] @ params["last"]

    keys = jax.random.split(jax.random.key(0), 4)
    up = jax.random.normal(keys[0], (2, 6, 4)).at[0, :, jnp.array([0, 3])].set(0).at[1, :, 1].set(0)
    params = {"layers": {"up": up, "down": jax.random.normal(keys[1], (2, 4, 6))}}
    params |= {"first": jax.random.normal(keys[2], (3, 6)), "last": jax.random.normal(keys[3], (6, 2))}
    x = jax.random.normal(jax.random.key(1), (5, 3))
    small = td.compact(network, params, x)
    np.testing.assert_allclose(small.apply(small.params, x), network(params, x), rtol=1e-4, atol=1e-5)
    assert small.params.params["layers"]["up"].shape == (2, 6, 3)
