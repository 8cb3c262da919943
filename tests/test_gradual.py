"""Gradual pruning follows its schedule and never gives back what it took."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import trees_equal

import td

KEY = jax.random.key(2)


@pytest.mark.parametrize("jit", [False, True])
def test_gradual_follows_the_cubic_schedule_and_holds_in_between(jit):
    transform = td.masks.gradual(proportion=0.9, begin=10, end=50, interval=20, kernels=".*")
    params = {"w": jax.random.normal(KEY, (40, 25))}
    apply = jax.jit(transform.apply) if jit else transform.apply
    mask_vars, gone = transform.init(KEY, params), {}
    for step in (0, 9, 10, 29, 30, 49, 50, 69, 70, 90):
        seen, mask_vars = apply(params, mask_vars, key=KEY, step=step)
        gone[step] = int((seen["w"] == 0).sum())
    half = int(np.floor(1000 * 0.9 * (1 - 0.5**3)))
    assert gone == {0: 0, 9: 0, 10: 0, 29: 0, 30: half, 49: half, 50: 900, 69: 900, 70: 900, 90: 900}
    expected = np.abs(np.asarray(params["w"])).ravel().argsort()[:900]
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(seen["w"]).ravel() == 0), np.sort(expected))


def test_gradual_never_gives_back_what_it_took():
    transform = td.masks.gradual(proportion=0.5, begin=0, end=10, interval=1, kernels=".*")
    params = {"w": jax.random.normal(KEY, (30, 4))}
    mask_vars = transform.init(KEY, params)
    apply = jax.jit(transform.apply)
    gone = np.zeros((30, 4), bool)
    for step in range(12):
        # Somebody else's optimiser that forgets `prune`: all weights change at random, also the ones that are gone.
        params = {"w": jax.random.normal(jax.random.fold_in(KEY, step), (30, 4))}
        seen, mask_vars = apply(params, mask_vars, key=KEY, step=step)
        now = np.asarray(seen["w"]) == 0
        assert (now | ~gone).all()
        gone = now
    assert gone.sum() == 60


def test_gradual_is_done_at_its_end_whatever_the_interval():
    transform = td.masks.gradual(proportion=0.8, begin=0, end=25, interval=10, kernels=".*")
    params = {"w": jax.random.normal(KEY, (10, 10))}
    mask_vars = transform.init(KEY, params)
    for step in range(27):
        seen, mask_vars = transform.apply(params, mask_vars, key=KEY, step=step)
    assert float(td.sparsity(seen, kernels=".*").total) == pytest.approx(0.8)


def test_gradual_does_not_move_its_masks_at_evaluation():
    transform = td.masks.gradual(begin=0, end=1, interval=1, kernels=".*")
    params = {"w": jnp.ones((10, 2))}
    mask_vars = transform.init(KEY, params)
    seen, same = transform.apply(params, mask_vars, key=None, step=5)
    assert trees_equal(seen, params) and trees_equal(same, mask_vars)


def test_trap_a_weight_of_zero_that_is_kept_goes_after_what_is_gone():
    """Ties between what is gone and an exact zero would remove more than the share."""
    params, before = {"w": jnp.array([[0.0], [9.0], [1.0], [2.0]])}, jnp.array([[True], [False], [True], [True]])
    mask_vars = td.MaskVars(stats={"w": before})
    assert td.masks.draw_ticket(params, mask_vars, 0.25, kernels=".*").stats["w"].tolist() == before.tolist()
    gradual = td.masks.gradual(proportion=0.25, begin=0, end=1, interval=1, kernels=".*")
    _, same = gradual.apply(params, mask_vars, key=KEY, step=1)
    assert same.stats["w"].tolist() == before.tolist()


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_a_pruned_network_is_fine_tuned_with_the_masks_that_pruned_it(granularity):
    params = {"conv": {"kernel": jax.random.normal(KEY, (3, 3, 2, 4))}, "bias": jnp.ones(4)}
    mask = td.prune_mask(params, 0.5, granularity, kernels=".*")
    mask_vars = td.masks.as_mask_vars(mask, params, granularity, kernels=".*")
    assert mask_vars.stats["conv/kernel"].shape == ((18, 4) if granularity == "weight" else (1, 4))
    seen, _ = td.masks.fixed_masks(granularity, kernels=".*").apply(params, mask_vars, key=KEY, step=0)
    assert trees_equal(seen, td.apply_mask(params, mask))
    with pytest.raises(td.UserError, match=r"the mask of 'conv/kernel' must have its shape, \[3, 3, 2, 4\]"):
        td.masks.as_mask_vars(mask_vars.stats, params, kernels=".*")


@pytest.mark.parametrize(("name", "value"), [("begin", -1), ("end", 5), ("interval", 0)])
def test_gradual_refuses_numbers_out_of_range(name, value):
    with pytest.raises(td.UserError, match=f"{name}={value} is out of range"):
        td.masks.gradual(**{"begin": 5, "end": 9, "interval": 1, name: value})
