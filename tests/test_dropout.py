"""Plain dropout: rescaling and limits."""

import jax.numpy as jnp
import numpy as np
from conftest import trees_equal
from test_targeted import apply

import td


def test_dropout_rescales_and_its_limits(params):
    dropped = apply(td.dropout("weight", 0.25, kernels=".*"), {"w": jnp.ones((50, 50))})["w"]
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert trees_equal(apply(td.dropout("weight", 0.0, kernels=".*"), params), params)
    assert float(td.sparsity(apply(td.dropout("weight", 1.0, kernels=".*"), params), kernels=".*").total) == 1.0
