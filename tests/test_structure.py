"""The structure of tiny networks, and one law for all of them: a dead group is never read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import structure_loops
import structure_networks

import td
from td import _tree
from td.structure import trace

HELPERS = ("drawn", "normed", "rms", "conv", "attend", "rotated", "layer", "layer_params", "along_units", "Linen")

NETWORKS = {
    name: network
    for module in (structure_networks, structure_loops)
    for name, network in vars(module).items()
    if getattr(network, "__module__", "") == module.__name__ and name not in HELPERS
}


def half_of(structure):
    """Every other group of each ranking."""
    return np.concatenate([[-2], *(numbers[..., ::2].ravel() for numbers in structure.families.values())])


def replaced(structure, tables, groups, params, numbers):
    """The params with other numbers in the entries of some groups."""
    leaves = _tree.named_leaves(params)
    for name in tables:
        for path, ids in getattr(structure, name).items():
            leaves[path] = jnp.where(np.isin(ids, groups), numbers(leaves[path].shape), leaves[path])
    return _tree.replace_leaves(params, leaves)


def drawn_inputs(inputs):
    rng = np.random.default_rng(1)
    draw = lambda x: rng.normal(size=x.shape) if x.dtype == jnp.float32 else rng.integers(0, 3, x.shape)  # noqa: E731
    return [jnp.asarray(draw(x), x.dtype) for x in inputs]


def remaining(structure, params, groups):
    """Parameters of the kernels without the entries of some groups."""
    counts = {}
    for path, leaf in _tree.named_leaves(params).items():
        tables = [getattr(structure, name).get(path, -1) for name in ("units", "inputs", "scales", "offsets")]
        gone = np.logical_or.reduce([np.broadcast_to(np.isin(ids, groups), leaf.shape) for ids in tables])
        counts[path] = int((~gone).sum())
    return counts


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_dead_group_is_never_read(name):
    apply, params, inputs = NETWORKS[name]()
    inputs = drawn_inputs(inputs)
    structure = trace(apply, params, *inputs)
    groups = half_of(structure)
    pruned = replaced(structure, ("units", "scales", "offsets"), groups, params, jnp.zeros)
    rng = np.random.default_rng(2)
    number = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    changed = replaced(structure, ("inputs",), groups, pruned, number)
    changed = replaced(structure, ("units", "scales", "offsets"), groups, changed, jnp.zeros)
    run = jax.jit(apply)
    for one, other in zip(*(jax.tree.leaves(run(p, *inputs)) for p in (pruned, changed)), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", sorted({*NETWORKS} - {"lstm", "scanned", "indexed", "branches", "grouped", "tagger"}))
def test_a_smaller_network_has_no_dead_group(name):
    apply, params, inputs = NETWORKS[name]()
    structure = trace(apply, params, *inputs)
    groups = half_of(structure)
    pruned = replaced(structure, ("units", "scales", "offsets"), groups, params, jnp.zeros)
    small = td.compact(apply, pruned, *inputs)
    expected = remaining(structure, params, groups)
    found = {path: np.size(leaf) for path, leaf in _tree.named_leaves(small.params.params).items()}
    kernels = {*structure.every, *structure.embeddings}
    assert {path: n for path, n in found.items() if path in kernels} == {p: expected[p] for p in found if p in kernels}
