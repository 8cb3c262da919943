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


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay(name):
    apply, params, inputs = NETWORKS[name]()
    rng = np.random.default_rng(0)
    inputs = [
        rng.normal(size=x.shape).astype(x.dtype) if x.dtype == jnp.float32 else x for x in map(jnp.asarray, inputs)
    ]
    structure = td.trace(apply, params, *inputs)
    pruned = half_dead(structure, params)
    moved = td.align(structure, pruned)
    for one, other in zip(*(jax.tree.leaves(apply(tree, *inputs)) for tree in (pruned, moved)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4 * float(jnp.abs(one).max()))


def attention(params, x, angles=None):
    """Two heads of four columns, with rotary positions where there are angles."""
    h = x @ params["first"]
    q, k, v = (jnp.einsum("td,dhe->hte", h, params[name]) for name in "qkv")
    if angles is not None:
        turn = lambda z: z * jnp.cos(angles) + jnp.roll(z, 2, -1) * jnp.sin(angles)  # noqa: E731
        q, k = turn(q), turn(k)
    weights = jax.nn.softmax(jnp.einsum("hqe,hke->hqk", q, k))
    return jnp.einsum("hqk,hke,hed->qd", weights, v, params["out"]) @ params["last"]


def drawn():
    shapes = {"first": (3, 6), **dict.fromkeys("qkv", (6, 2, 4)), "out": (2, 4, 6), "last": (6, 2)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def pruned_and_moved(network):
    params, x = drawn(), jax.random.normal(jax.random.key(1), (5, 3))
    structure = td.trace(network, params, x)
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=structure))
    moved = td.align(structure, pruned)
    np.testing.assert_allclose(network(moved, x), network(pruned, x), rtol=1e-4, atol=1e-5)
    return {name: leaf.shape for name, leaf in td.compact(network, moved, x).params.params.items()}


def test_columns_that_differ_from_head_to_head_are_removed():
    shapes = pruned_and_moved(attention)
    assert shapes["q"] == shapes["k"] == shapes["v"] == (6, 2, 2) and shapes["out"] == (2, 2, 3)


def test_trap_rotary_positions_keep_their_columns():
    angles = jnp.arange(5.0)[:, None] * jnp.array([1.0, 0.1, 1.0, 0.1])
    shapes = pruned_and_moved(lambda params, x: attention(params, x, angles))
    assert shapes["v"] == (6, 2, 2) and shapes["q"] == shapes["k"] != shapes["v"]


def test_nothing_moves_where_nothing_is_pruned():
    params = drawn()
    moved = td.align(td.trace(attention, params, jnp.ones((5, 3))), params)
    assert all((moved[name] == leaf).all() for name, leaf in params.items())
