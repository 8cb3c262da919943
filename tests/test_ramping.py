"""Ramping targeted dropout, its xtreme form, and targets drawn at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import trees_equal
from test_targeted import KEY, NONE, apply

import td
from td.kernels import select_kernels
from td.models import ResNet


def test_ramping_ends_as_targeted(params):
    end = apply(td.ramping("weight", 0.75, 0.66, stage=10), params, step=20)
    assert trees_equal(end, apply(td.targeted("weight", 0.75, 0.66), params, step=20))


@pytest.mark.slow
def test_xtreme_leaves_exactly_k_weights_in_every_unit_of_every_kernel_of_resnet32():
    network = ResNet(num_classes=10)
    shapes = jax.eval_shape(network.init, KEY, jnp.ones((1, 32, 32, 3)))["params"]
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    params = treedef.unflatten([rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
    transform = td.masks.xtreme(3, stage=10)
    seen, _ = jax.jit(transform.apply, static_argnames="key")(params, NONE, key=None, step=20)
    kernels = select_kernels(seen)
    assert len(kernels) == 33
    for kernel in kernels.values():
        assert (np.asarray(kernel != 0).reshape(-1, kernel.shape[-1]).sum(axis=0) == 3).all()


def test_xtreme_keeps_what_has_no_more_than_k_inputs():
    seen = apply(
        td.masks.xtreme(5, 1.0, stage=1, kernels=".*"), {"w1": jnp.ones((5, 3)), "w2": jnp.ones((4, 3))}, step=2
    )
    assert bool(seen["w1"].all()) and bool(seen["w2"].all())


def test_random_targets_stay_the_same_and_are_what_pruning_removes():
    transform, params = (
        td.masks.random_targets("weight", 0.5, 1.0, kernels=".*"),
        {"w": jax.random.normal(KEY, (40, 7))},
    )
    mask_vars = transform.init(KEY, params)
    first, _ = transform.apply(params, mask_vars, key=KEY, step=0)
    other = {"w": params["w"][::-1]}
    second, _ = transform.apply(other, mask_vars, key=KEY, step=5)
    np.testing.assert_array_equal(first["w"] == 0, second["w"] == 0)
    ranking = np.asarray(mask_vars.stats["w"])
    expected = np.stack([column >= np.sort(column)[20] for column in ranking.T], axis=1)
    np.testing.assert_array_equal(first["w"] != 0, expected)
    pruned = td.prune_mask(params, 0.5, scores=transform.scores(params, mask_vars), kernels=".*")["w"]
    np.testing.assert_array_equal(pruned, expected)
