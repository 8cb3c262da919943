"""Random pruning: what is gone stays gone, and is not chosen by magnitude."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import td
from td.kernels import select_kernels

KEY = jax.random.key(0)


@pytest.mark.parametrize("granularity", ["weight", "unit"])
@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9, nesterov=True)),
        optax.adamw(0.1, weight_decay=0.1),
    ],
    ids=["momentum", "adamw"],
)
def test_trap_random_pruned_weights_stay_pruned(params, granularity, optimizer):
    transform = td.random_prune(granularity, 0.5)
    mask_vars = transform.init(KEY, params)
    before, _ = transform.apply(params, mask_vars, key=KEY, step=0)
    params = transform.prune(params, mask_vars)
    opt_state = optimizer.init(params)

    def loss(params, step):
        seen, _ = transform.apply(params, mask_vars, key=KEY, step=step)
        return sum(jnp.sum(jnp.sin(leaf) ** 2) for leaf in jax.tree.leaves(seen))

    @jax.jit
    def update(params, opt_state, step):
        updates, opt_state = optimizer.update(jax.grad(loss)(params, step), opt_state, params)
        return transform.prune(optax.apply_updates(params, updates), mask_vars), opt_state

    for step in range(10):
        params, opt_state = update(params, opt_state, step)
    assert td.sparsity(params).kernels == td.sparsity(before).kernels
    after, _ = transform.apply(params, mask_vars, key=None, step=10)
    for path, leaf in select_kernels(before).items():
        np.testing.assert_array_equal(leaf == 0, select_kernels(after)[path] == 0)
        assert float((leaf == 0).mean()) == 0.5


def test_random_prune_takes_the_same_number_from_every_column_and_is_not_by_magnitude():
    params = {"w": jax.random.normal(KEY, (100, 20))}
    transform = td.random_prune("weight", 0.3, kernels=".*")
    pruned, _ = transform.apply(params, transform.init(KEY, params), key=None, step=0)
    assert set((pruned["w"] == 0).sum(axis=0).tolist()) == {30}
    by_magnitude = ~td.prune_mask(params, 0.3, kernels=".*")["w"]
    assert 0.2 < float((by_magnitude & (pruned["w"] == 0)).sum() / by_magnitude.sum()) < 0.4
