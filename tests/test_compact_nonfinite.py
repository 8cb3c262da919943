"""NaN and infinity that the network masks out stay in their own entries, whatever the size of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import assert_equal, normal
from jax import export

import td

WIDTH, ROWS = 16, 64
DEAD = jnp.array([1, 2, 7, 12])
BATCHES = (2, 2**17 // (ROWS * WIDTH), 2**17 // (ROWS * (WIDTH - 4)) + 1)  # below, at and above 2^17 entries


def single(*shape, seed=0):
    return normal(*shape, seed=seed).astype(jnp.float32)


def repaired(params, x):
    """Replace missing inputs by zeros."""
    return jax.nn.relu(jnp.where(jnp.isnan(x), 0, x) @ params["w1"] + params["b1"]) @ params["w2"]


def masked(params, x, mask):
    """Mask by -inf, which a maximum and a ReLU take out again."""
    hidden = jnp.where(mask, x @ params["w0"], -jnp.inf)
    return jnp.maximum(hidden, x @ params["w1"]) @ params["w3"], jax.nn.relu(hidden) @ params["w4"]


PARAMS = {
    repaired: {"w1": single(WIDTH, 32).at[DEAD].set(0), "b1": single(32), "w2": single(32, 4)},
    masked: {"w0": single(WIDTH, WIDTH), "w1": single(WIDTH, WIDTH, seed=1)}
    | {"w3": single(WIDTH, 8).at[DEAD].set(0), "w4": single(WIDTH, 8).at[DEAD + 2].set(0)},
}


def inputs(apply, batch):
    x = single(batch, ROWS, WIDTH)
    return (x.at[::3, ::5, 3].set(jnp.nan),) if apply is repaired else (x, x[..., :1] > 0)


@pytest.mark.parametrize("apply", PARAMS)
@pytest.mark.parametrize("batch", BATCHES)
def test_masked_entries_stay_apart_in_small_and_large_arrays(apply, batch):
    small = td.compact(apply, PARAMS[apply], *inputs(apply, 2))
    assert_equal(apply, PARAMS[apply], small, *inputs(apply, batch), tolerance=1e-5)


@pytest.mark.parametrize("apply", PARAMS)
def test_masked_entries_stay_apart_in_an_export_for_any_batch(apply):
    small = td.compact(apply, PARAMS[apply], *inputs(apply, 2))
    (batch,) = export.symbolic_shape("batch")
    symbolic = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in inputs(apply, 2)]
    exported = export.export(jax.jit(lambda *inputs: small.apply(small.params, *inputs)))(*symbolic)
    expected, found = apply(PARAMS[apply], *inputs(apply, 3)), exported.call(*inputs(apply, 3))
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * float(jnp.abs(one).max()))
