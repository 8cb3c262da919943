"""Totals of one vector, as accelerators compute them, equal those of each leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import td
from td.train import totals

DENSE = {"kernel": jnp.array([[3.0, 0, 0, 0], [0, 0, 0, 1]]), "bias": jnp.array([12.0, 0, 0, 0])}
TREE = {"stem": {"kernel": jnp.ones((3, 2))}, "dense": DENSE, "logits": {"kernel": jnp.ones((4, 2))}}


@pytest.fixture(autouse=True, params=["cpu", "default"])
def platform(request, monkeypatch):
    monkeypatch.setattr(totals.lax, "platform_dependent", lambda *tree, **branches: branches[request.param](*tree))


def test_norm_of_a_tree():
    assert float(totals.norm(TREE)) == pytest.approx(168**0.5)


def test_share_of_zeros_is_the_sparsity():
    assert float(totals.zeros(TREE, td.KERNELS)) == pytest.approx(float(td.sparsity(TREE).total)) == 0.75


@pytest.mark.parametrize("limit", [6.5, 100.0])
def test_clipping_is_that_of_optax(limit):
    clip, expected = totals.clip_by_norm(limit), optax.clip_by_global_norm(limit)
    found, wanted = (each.update(TREE, each.init(TREE))[0] for each in (clip, expected))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), found, wanted)
