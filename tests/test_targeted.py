"""Targeted dropout: its limits, its expectation, hand-made golden masks and evaluation modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import trees_equal
from hypothesis import given, settings
from hypothesis import strategies as st

import td

KEY = jax.random.key(3)
NONE = td.MaskVars()
# Columns by hand: lowest half of |w| is rows 1, 3 | 0, 2 | 2, 3; norms 5.48, 2.23, 10.0.
HAND = jnp.array([[2.0, -0.1, 5.0], [-1.0, 2.0, -7.0], [5.0, -0.2, 1.0], [0.5, 0.97, 5.0]])


def apply(transform, params, key=KEY, step=0, jit=True):
    function = jax.jit(transform.apply) if jit else transform.apply
    return function(params, NONE, key=key, step=step)[0]


@pytest.mark.parametrize("jit", [False, True])
def test_golden_weights_by_hand(jit):
    dropped = apply(td.targeted("weight", 0.5, 1.0, kernels=".*"), {"w": HAND}, jit=jit)["w"]
    kept = [[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1]]
    np.testing.assert_array_equal(dropped, np.asarray(HAND) * kept)


@pytest.mark.parametrize("jit", [False, True])
def test_golden_units_by_hand(jit):
    dropped = apply(td.targeted("unit", 0.4, 1.0, kernels=".*"), {"w": HAND}, jit=jit)["w"]
    np.testing.assert_array_equal(dropped, np.asarray(HAND) * [1, 0, 1])


def test_golden_convolution_ranks_over_the_flattened_fan_in():
    kernel = jnp.arange(1.0, 9.0).reshape(2, 2, 1, 2)  # columns 1 3 5 7 and 2 4 6 8
    dropped = apply(td.targeted("weight", 0.5, 1.0, kernels=".*"), {"conv": {"kernel": kernel}})["conv"]["kernel"]
    assert dropped.ravel().tolist() == [0, 0, 0, 0, 5, 6, 7, 8]


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_limit_drop_rate_one_is_pruning(params, granularity):
    @jax.jit
    def both(rate):
        dropped = apply(td.targeted(granularity, rate, 1.0), params, jit=False)
        return dropped, td.apply_mask(params, td.prune_mask(params, rate, granularity))

    for rate in (0.0, 0.1, 0.5, 0.65, 0.9, 1.0):
        assert trees_equal(*both(jnp.float32(rate)))
    assert both._cache_size() == 1


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_limit_everything_targeted_is_dropout_without_rescaling(params, granularity):
    targeted = apply(td.targeted(granularity, 1.0, 0.4), params)
    assert trees_equal(targeted, apply(td.dropout(granularity, 0.4, rescale=False), params))


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_limit_nothing_dropped_is_the_identity(params, granularity):
    @jax.jit
    def dropped(target_proportion, drop_rate):
        return apply(td.targeted(granularity, target_proportion, drop_rate), params, jit=False)

    for target_proportion, drop_rate in ((0.75, 0.0), (0.0, 0.66), (0.0, 0.0)):
        assert trees_equal(dropped(jnp.float32(target_proportion), jnp.float32(drop_rate)), params)


@jax.jit
def kept_share(target_proportion, drop_rate, step):
    params = {"w": jax.random.normal(jax.random.key(0), (100, 300))}
    transform = td.targeted("weight", target_proportion, drop_rate, kernels="w")
    return 1 - td.sparsity(apply(transform, params, step=step, jit=False), kernels="w").total


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 1), st.floats(0.05, 0.95), st.integers(0, 1000))
def test_expected_kept_share(target_proportion, drop_rate, step):
    share = np.floor(100 * np.float32(target_proportion) + 1e-4) / 100
    kept = float(kept_share(jnp.float32(target_proportion), jnp.float32(drop_rate), jnp.asarray(step)))
    deviation = np.sqrt(share * drop_rate * (1 - drop_rate) / 30_000)
    assert abs(kept - (1 - share * drop_rate)) < 5 * deviation + 1e-6


def test_unit_draws_drop_whole_columns():
    dropped = apply(td.targeted("unit", 1.0, 0.5, kernels=".*"), {"w": jnp.ones((9, 200))})["w"]
    columns = (dropped == 0).sum(axis=0)
    assert set(columns.tolist()) == {0, 9}


def test_only_candidates_are_ever_dropped():
    params = {"w": jax.random.normal(KEY, (40, 7))}
    kept_for_good = td.prune_mask(params, 0.5, kernels=".*")["w"]
    transform = td.targeted("weight", 0.5, 0.9, kernels=".*")
    for step in range(5):
        dropped = apply(transform, params, step=step)["w"]
        assert bool(((dropped != 0) | ~kept_for_good).all())


def test_steps_and_paths_draw_differently():
    params = {"w1": jnp.ones((30, 30)), "w2": jnp.ones((30, 30))}
    transform = td.targeted("weight", 1.0, 0.5, kernels=".*")
    first, second = apply(transform, params, step=0), apply(transform, params, step=1)
    assert not trees_equal(first, second) and not trees_equal(first["w1"], first["w2"])


def test_trap_masks_inside_the_loss_are_not_straight_through():
    params = {"w": HAND}
    transform = td.targeted("weight", 0.5, 1.0, kernels=".*")
    gradient = jax.grad(lambda params: apply(transform, params)["w"].sum())(params)["w"]
    np.testing.assert_array_equal(gradient, td.prune_mask(params, 0.5, kernels=".*")["w"].astype(jnp.float32))


def test_per_weight_draws_drop_single_weights_of_candidate_units_only():
    params = {"w": jnp.concatenate([jnp.full((50, 4), 0.1), jnp.ones((50, 4))], axis=1)}
    dropped = apply(td.targeted("unit", 0.5, 0.3, per_weight_draws=True, kernels=".*"), params)["w"]
    assert bool(dropped[:, 4:].all())
    share = float((dropped[:, :4] == 0).mean())
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 200)
    assert not (dropped[:, :4] == 0).all(axis=0).any()


def test_straight_through_changes_the_gradient_and_nothing_else(params):
    plain, through = (td.targeted("weight", 0.5, 0.7, straight_through=flag, kernels=".*") for flag in (False, True))
    assert trees_equal(apply(plain, params), apply(through, params))
    gradient = jax.grad(lambda params: apply(through, params)["block"][1][0]["kernel"].sum())(params)
    assert bool((gradient["block"][1][0]["kernel"] == 1).all())
    infinite = {"w": jnp.array([[jnp.inf, 1.0], [0.5, -2.0]])}
    assert trees_equal(
        apply(td.targeted("weight", 0.5, 1.0, straight_through=True, kernels=".*"), infinite),
        td.apply_mask(infinite, td.prune_mask(infinite, 0.5, kernels=".*")),
    )


def test_trap_straight_through_leaves_other_leaves_alone():
    params = {"w": jnp.ones((4, 2)), "bias_mask": jnp.array([0.0, -jnp.inf]), "flag": jnp.array(True), "f": jnp.sin}
    seen = apply(td.targeted("weight", 0.5, 1.0, straight_through=True, kernels=".*"), params, jit=False)
    assert all(seen[name] is params[name] for name in ("bias_mask", "flag", "f"))


@pytest.mark.parametrize("criterion", ["magnitude", "l1"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_other_criteria_and_scopes_train_as_they_prune(params, criterion, scope):
    dropped = apply(td.targeted("unit", 0.5, 1.0, criterion=criterion, scope=scope), params)
    assert trees_equal(
        dropped, td.apply_mask(params, td.prune_mask(params, 0.5, "unit", criterion=criterion, scope=scope))
    )


def test_optax_schedules_serve_as_proportions(params):
    import optax

    transform = td.targeted("weight", optax.linear_schedule(0.0, 1.0, 10), drop_rate=1.0)
    assert [round(float(td.sparsity(apply(transform, params, step=t)).total), 1) for t in (0, 5, 10)] == [0, 0.5, 1]


def test_evaluation_dense_keeps_and_prune_targets_removes_the_targets(params):
    dense = apply(td.targeted("weight", 0.75, 0.66), params, key=None)
    pruned = apply(td.targeted("weight", 0.75, 0.66, evaluation="prune_targets"), params, key=None)
    assert trees_equal(dense, params)
    assert trees_equal(pruned, td.apply_mask(params, td.prune_mask(params, 0.75)))


def test_prune_targets_trains_like_dense(params):
    one, other = (td.targeted("weight", 0.75, 0.66, evaluation=e) for e in ("dense", "prune_targets"))
    assert trees_equal(apply(one, params), apply(other, params))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "wieght"}, "did you mean 'weight'"),
        ({"target_proportion": 1.5}, r"target_proportion=1.5 is out of range"),
        ({"drop_rate": -0.1}, r"drop_rate=-0.1 is out of range"),
        ({"evaluation": "prune_target"}, "did you mean 'prune_targets'"),
        ({"per_weight_draws": True}, "give granularity='unit'"),
        ({"min_kept": 1, "scope": "2:4"}, "leave min_kept at 0"),
        ({"min_kept": 2.5}, "min_kept=2.5 is out of range: give a whole number"),
    ],
)
def test_bad_arguments_are_told_in_one_line(arguments, message):
    with pytest.raises(td.UserError, match=message) as caught:
        td.targeted(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_masks_are_the_same_bits_however_the_kernel_is_spread(granularity, axis):
    """Ranking and draws look at every entry by its place in the whole kernel."""
    transform = td.targeted(granularity, target_proportion=0.7, drop_rate=0.5, kernels=".*")
    params = {"w": jax.random.normal(jax.random.key(0), (40, 24))}
    mask_vars = transform.init(jax.random.key(1), params)
    mesh = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[None] * axis, "batch"))
    seen = jax.jit(lambda params, step: transform.apply(params, mask_vars, key=jax.random.key(2), step=step)[0])
    np.testing.assert_array_equal(seen(params, 3)["w"], seen(jax.device_put(params, spread), 3)["w"])
