"""Pruning after training, measured sparsity, dead units."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from conftest import trees_equal

import td
from td import _tree, prune
from td.kernels import select_kernels

KEY = jax.random.key(0)


@pytest.mark.parametrize("jit", [False, True])
def test_golden_masks_by_hand(jit):
    prune_mask = partial(td.prune_mask, kernels="w")
    prune_mask = jax.jit(prune_mask, static_argnums=2) if jit else prune_mask
    params = {"w": jnp.array([[1.0, -4.0, 0.5], [-2.0, 3.0, -0.1], [3.0, 0.0, 0.2]])}
    weights = prune_mask(params, 0.4, "weight")["w"]  # floor(.4 * 3) = 1 of each column
    assert weights.astype(int).tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 1]]
    units = prune_mask(params, 0.4, "unit")["w"]  # norms 3.7, 5, 0.5
    assert units.astype(int).tolist() == [[1, 1, 0]] * 3


def test_trap_rate_zero_prunes_nothing_even_with_ties():
    params = {"w": jnp.ones((8, 3))}
    assert all(bool(td.prune_mask(params, 0.0, kind, kernels=".*")["w"].all()) for kind in ("weight", "unit"))


def test_trap_rate_one_prunes_everything():
    params = {"w": jnp.ones((8, 3))}
    assert not any(bool(td.prune_mask(params, 1.0, kind, kernels=".*")["w"].any()) for kind in ("weight", "unit"))


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
def test_trap_rate_out_of_range_is_refused(rate):
    with pytest.raises(td.UserError, match="out of range"):
        td.prune_mask({"w": jnp.ones((8, 3))}, rate)


def test_trap_train_and_prune_agree_where_float32_is_off_by_one():
    params = {"w": jax.random.normal(KEY, (5760, 2))}
    trained, _ = td.targeted("weight", 0.65, 1.0, kernels=".*").apply(params, td.MaskVars(), key=KEY, step=0)
    pruned = td.apply_mask(params, td.prune_mask(params, 0.65, kernels=".*"))
    assert trees_equal(trained, pruned)
    assert (pruned["w"] == 0).sum(axis=0).tolist() == [3744, 3744]


def test_trap_a_mask_is_a_keep_mask(params):
    mask = td.prune_mask(params, 0.9)
    kept = sum(int(leaf.sum()) for leaf in select_kernels(mask_as_floats(mask)).values())
    total = sum(leaf.size for leaf in select_kernels(params).values())
    assert kept < 0.2 * total
    assert all(bool(leaf.all()) for path, leaf in named(mask) if "bias" in path or "stem" in path or "logits" in path)


def mask_as_floats(mask):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mask)


def named(params):
    return list(zip(_tree.paths(params), jax.tree.leaves(params), strict=True))


def test_one_compile_serves_every_rate(params):
    prune_mask = jax.jit(lambda rate: td.prune_mask(params, rate))
    kept = [sum(int(leaf.sum()) for leaf in jax.tree.leaves(prune_mask(jnp.float32(r)))) for r in (0.1, 0.5, 0.9)]
    assert kept == sorted(kept, reverse=True) and prune_mask._cache_size() == 1


def test_scores_of_a_method_replace_magnitude():
    params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    scores = {"w": jnp.array([[9.0, 1.0], [1.0, 9.0]])}
    assert td.prune_mask(params, 0.5, scores=scores, kernels=".*")["w"].tolist() == [[True, False], [False, True]]
    by_unit = td.prune_mask(params, 0.5, "unit", scores={"w": jnp.array([[5.0, 1.0]])}, kernels=".*")
    assert by_unit["w"].tolist() == [[True, False], [True, False]]


def test_sparsity_counts_exact_zeros_per_kernel_and_in_total():
    measured = td.sparsity({"w1": jnp.array([[0.0, 1.0]]), "w2": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}, kernels=".*")
    assert {path: float(share) for path, share in measured.kernels.items()} == {"w1": 0.5, "w2": 1.0}
    assert float(measured.total) == 7 / 8


def test_trap_sparsity_of_more_weights_than_an_integer_counts(monkeypatch):
    huge = {"w": jax.ShapeDtypeStruct((2**16, 2**17), jnp.bfloat16)}
    assert jax.eval_shape(partial(td.sparsity, kernels="w"), huge).total.shape == ()
    params = {"w1": jax.random.normal(KEY, (40, 30)), "w2": jnp.zeros((7, 5))}
    pruned = td.apply_mask(params, td.prune_mask(params, 0.3, kernels=".*"))
    exact = td.sparsity(pruned, kernels=".*")
    monkeypatch.setattr(prune, "MOST_COUNTED", 100)
    large = td.sparsity(pruned, kernels=".*")
    assert float(large.total) == pytest.approx(float(exact.total), rel=1e-6) == (360 + 35) / 1235
    assert float(large.kernels["w1"]) == pytest.approx(0.3)


def test_what_is_zero_already_goes_first_whatever_the_scores_say():
    params = {"w": jnp.array([[0.0], [1.0], [2.0], [0.0]])}
    scores = {"w": jnp.array([[9.0], [2.0], [3.0], [1.0]])}
    assert td.prune_mask(params, 0.5, scores=scores, kernels=".*")["w"].ravel().tolist() == [False, True, True, False]


def test_trap_what_is_there_and_scores_nothing_outlives_what_is_not():
    params = {"w": jnp.array([[1.0, 0.0], [0.0, 1.0]])}
    scores = {"w": jnp.array([[0.0, 5.0], [5.0, 0.0]])}
    assert td.prune_mask(params, 0.5, scores=scores, kernels="w")["w"].tolist() == [[True, False], [False, True]]


def test_trap_scores_in_a_kernels_own_shape_are_told():
    params, scores = {"conv": {"kernel": jnp.ones((1, 1, 4, 2))}}, {"conv/kernel": jnp.ones((1, 1, 4, 2))}
    for granularity in ("weight", "unit"):
        with pytest.raises(td.UserError, match=r"have shape \[1, 1, 4, 2\]: give \[4, 2\], or \[1, 2\] for units"):
            td.prune_mask(params, 0.5, granularity, scores=scores, kernels=".*")


def test_leaves_that_are_no_numbers_pass():
    tree = {"w": jnp.ones((4, 2)), "activation": jax.nn.relu, "key": KEY, "name": "dense", "scale": 2.0}
    pruned = td.apply_mask(tree, td.prune_mask(tree, 0.5, kernels=".*"))
    assert float(pruned["w"].sum()) == 4 and pruned["scale"] == 2.0
    assert all(pruned[name] is tree[name] for name in ("activation", "key", "name"))


@pytest.mark.parametrize("shape", [(6, 0), (0, 3)])
def test_kernels_that_compaction_has_emptied_are_left_alone(shape):
    params, empty = {"w": jnp.arange(6.0).reshape(3, 2)}, {"gone": jnp.zeros(shape)}
    for granularity, scope in (("weight", "unit"), ("weight", "layer"), ("weight", "global"), ("unit", "unit")):
        alone, beside = (
            td.prune_mask(tree, 0.5, granularity, scope=scope, kernels=".*") for tree in (params, params | empty)
        )
        assert beside["w"].tolist() == alone["w"].tolist() and beside["gone"].shape == shape
    assert float(td.sparsity(params | empty, kernels=".*").total) == pytest.approx(1 / 6)
    for method in (td.masks.l1(kernels=".*"), td.masks.l0(kernels=".*"), td.masks.group_lasso(kernels=".*")):
        penalties = [float(method.penalty(tree, method.init(KEY, tree).gates, 0)) for tree in (params, params | empty)]
        assert penalties[0] == pytest.approx(penalties[1], rel=1e-2)
    with pytest.raises(td.UserError, match="the kernels are: .none: td.describe"):
        td.prune_mask(empty, 0.5, kernels=".*")


def mask(kernel):
    return td.prune_mask({"w": kernel}, 0.4, kernels="w")["w"]


def spread(kernel, axis, kind):
    mesh = jax.make_mesh((2,), ("x",), (kind,), devices=jax.devices()[:2])
    return mesh, jax.sharding.PartitionSpec(*[None] * axis, "x")


@pytest.mark.parametrize("axis", [0, 1])
def test_under_shard_map_every_device_ranks_its_own_part(axis):
    kernel = jax.random.normal(KEY, (40, 256))
    mesh, spec = spread(kernel, axis, jax.sharding.AxisType.Auto)
    masked = jax.jit(jax.shard_map(mask, mesh=mesh, in_specs=spec, out_specs=spec))(kernel)
    expected = jnp.concatenate([mask(part) for part in jnp.split(kernel, 2, axis)], axis)
    assert bool((masked == expected).all())


@pytest.mark.parametrize("axis", [0, 1])
def test_kernels_that_are_explicitly_sharded_are_ranked_where_xla_decides(axis):
    kernel = jax.random.normal(KEY, (40, 256))
    mesh, spec = spread(kernel, axis, jax.sharding.AxisType.Explicit)
    sharded = jax.device_put(kernel, jax.sharding.NamedSharding(mesh, spec))
    with pytest.raises(td.UserError, match="'w' is sharded explicitly"):
        jax.jit(mask)(sharded)
    with jax.set_mesh(mesh):
        masked = jax.jit(jax.sharding.auto_axes(mask, out_sharding=spec))(sharded)
    assert bool((masked == mask(kernel)).all())


@pytest.mark.parametrize(
    "transform", [td.dropout("weight", 0.5, kernels=".*"), td.random_prune("unit", 0.5, kernels=".*")]
)
def test_masking_what_is_explicitly_sharded_is_refused_with_the_line(transform):
    mesh, spec = spread(None, 1, jax.sharding.AxisType.Explicit)
    params = {"w": jax.device_put(jnp.ones((4, 8)), jax.sharding.NamedSharding(mesh, spec))}
    mask_vars = transform.init(KEY, {"w": jnp.ones((4, 8))})
    with pytest.raises(td.UserError, match="'w' is sharded explicitly.*axis_types="):
        transform.apply(params, mask_vars, key=KEY, step=0)


def test_under_strict_promotion():
    params = {"w": jax.random.normal(KEY, (8, 4))}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for granularity in ("weight", "unit"):
            pruned = td.apply_mask(params, td.prune_mask(params, 0.5, granularity, kernels=".*"))
            assert float(td.sparsity(pruned, kernels=".*").total) == 0.5


def test_scores_of_no_leaf_and_masks_of_other_shapes_are_refused():
    params = {"w": jnp.array([[1.0], [2.0], [3.0]])}
    with pytest.raises(td.UserError, match="scores of 'W', which is not a leaf: valid: w"):
        td.prune_mask(params, 0.5, scores={"W": params["w"]}, kernels=".*")
    ranked = td.prune_mask(params, 0.34, scores={"w": jnp.array([[3], [1], [2]])}, kernels=".*")  # whole numbers, too
    assert ranked["w"].ravel().tolist() == [True, False, True]
    with pytest.raises(td.UserError, match=r"a mask of shape \[3, 1\] does not fit a leaf of \[1\]"):
        td.apply_mask({"w": jnp.ones(1)}, {"w": ranked["w"]})
    with pytest.raises(td.UserError, match="give a number in .0, 1.$"):
        td.prune_mask(params, lambda step: 0.5, kernels=".*")


def test_dead_units_are_columns_of_zeros():
    kernel = jnp.ones((2, 2, 1, 4)).at[..., 1].set(0).at[0, 0, 0, 2].set(0)
    dead = prune.dead_units({"conv": {"kernel": kernel}, "w": jnp.zeros((3, 2))}, kernels=".*")
    assert dead["conv/kernel"].tolist() == [False, True, False, False] and dead["w"].all()
