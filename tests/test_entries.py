"""What a method draws at its start, and how entries are scored."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import small_structure, small_tree
from jax import lax

import td
from td._entries import entries_of

KEY = jax.random.key(7)
SHAPES = {"b": (3, 3, 4, 6), "a": (36, 5), "c": (7, 5)}
"""Two kernels of one height among others, not in alphabetical order."""


def test_init_and_the_first_step_draw_differently_from_one_key():
    transform, params = td.masks.random_targets("weight", 0.5, 0.5, kernels=".*"), {"w": jnp.ones((100, 100))}
    seen, _ = transform.apply(params, transform.init(KEY, params), key=KEY, step=0)
    assert abs(float(td.sparsity(seen, kernels=".*").total) - 0.25) < 0.025


def test_accelerators_score_units_of_one_height_together_and_the_same(monkeypatch):
    trees = {
        "unit": {name: {"kernel": jax.random.normal(KEY, shape)} for name, shape in SHAPES.items()},
        "group": small_tree(),
    }
    for granularity, tree in trees.items():
        entries = entries_of(tree, granularity, small_structure() if granularity == "group" else ".*")
        alone = entries.saliencies()
        with monkeypatch.context() as patch:
            patch.setattr(lax, "platform_dependent", lambda tree, cpu, default: default(tree))
            together = entries.saliencies()
        assert [*together] == [*alone]
        for name, scores in alone.items():
            np.testing.assert_allclose(together[name], scores, rtol=1e-6)
