"""One table of all transforms, and what each of them must keep to. A new method is one more row."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_structure, small_tree, trees_equal

import td
from td import _tree
from td.kernels import select_kernels

TRANSFORMS = {
    "identity": td.identity,
    "targeted_weight": lambda: td.targeted("weight", 0.75, 0.66),
    "targeted_unit": lambda: td.targeted("unit", 0.5, 0.5),
    "targeted_scheduled": lambda: td.targeted("weight", lambda step: 0.1 * step, lambda step: 0.2 * step),
    "targeted_prune_targets": lambda: td.targeted("weight", 0.5, 0.5, evaluation="prune_targets"),
    "ramping_weight": lambda: td.ramping("weight", 0.9, 0.9, stage=4),
    "ramping_unit": lambda: td.ramping("unit", 0.9, 0.9, stage=4),
    "dropout_weight": lambda: td.dropout("weight", 0.3),
    "dropout_unit": lambda: td.dropout("unit", 0.3),
    "dropout_unscaled": lambda: td.dropout("weight", 0.3, rescale=False),
    "targeted_layer": lambda: td.targeted("weight", 0.5, 0.5, scope="layer"),
    "targeted_global": lambda: td.targeted("unit", 0.5, 0.5, scope="global", criterion="l1"),
    "targeted_groups": lambda: td.targeted("weight", 0.5, 0.5, scope="2:4"),
    "targeted_per_weight_draws": lambda: td.targeted("unit", 0.5, 0.5, per_weight_draws=True),
    "random_targets_weight": lambda: td.masks.random_targets("weight", 0.5, 0.5),
    "random_targets_unit": lambda: td.masks.random_targets("unit", 0.5, 0.5),
    "xtreme": lambda: td.masks.xtreme(3, 0.9, stage=2),
    "l1_sum": lambda: td.masks.l1(0.1, "sum"),
    "l1_mean": lambda: td.masks.l1(0.1, "mean"),
    "group_lasso": td.masks.group_lasso,
    "l0_weight": lambda: td.masks.l0("weight", initial_drop_rate=0.3),
    "l0_unit": lambda: td.masks.l0("unit", initial_drop_rate=0.3),
    "variational_weight": lambda: td.masks.variational("weight"),
    "variational_unit": lambda: td.masks.variational("unit"),
    "variational_local": lambda: td.masks.variational("weight", local=True),
    "smallify_weight": lambda: td.masks.smallify("weight"),
    "smallify_unit": lambda: td.masks.smallify("unit"),
    "gradual_weight": lambda: td.masks.gradual("weight", 0.5, begin=3, end=4, interval=1),
    "gradual_unit": lambda: td.masks.gradual("unit", 0.5, begin=1, end=3, interval=2),
    "lottery_weight": lambda: td.masks.lottery("weight"),
    "lottery_unit": lambda: td.masks.lottery("unit"),
    "fixed": lambda: td.masks.fixed_masks("unit"),
    "random_prune_weight": lambda: td.random_prune("weight", 0.5),
    "random_prune_unit": lambda: td.random_prune("unit", 0.5),
    "targeted_group": lambda: td.targeted("group", 0.5, 0.5, kernels=STRUCTURE),
    "ramping_group": lambda: td.ramping("group", 0.9, 0.9, stage=4, kernels=STRUCTURE),
    "random_targets_group": lambda: td.masks.random_targets("group", 0.5, 0.5, kernels=STRUCTURE),
    "dropout_group": lambda: td.dropout("group", 0.3, kernels=STRUCTURE),
    "random_prune_group": lambda: td.random_prune("group", 0.5, kernels=STRUCTURE),
    "gradual_group": lambda: td.masks.gradual("group", 0.5, begin=1, end=3, interval=2, kernels=STRUCTURE),
    "lottery_group": lambda: td.masks.lottery("group", kernels=STRUCTURE),
    "fixed_group": lambda: td.masks.fixed_masks("group", kernels=STRUCTURE),
    "group_lasso_group": lambda: td.masks.group_lasso(over="group", kernels=STRUCTURE),
    "chain_of_gates": lambda: td.chain(td.masks.l0("unit"), td.masks.smallify("weight"), td.targeted("unit")),
    "chain": lambda: td.chain(td.random_prune("weight", 0.25), td.targeted("weight", 0.75, 0.5)),
    "chain_of_none": td.chain,
}

KEY = jax.random.key(7)

STRUCTURE = small_structure()


class Outcome(NamedTuple):
    """All that a method does to one tree, compiled as one program for all contracts."""

    mask_vars: td.MaskVars
    seen: dict
    new_vars: td.MaskVars
    gradient: dict
    evaluated: list
    penalty: jax.Array
    scores: dict
    stored: list


def outcome_of(transform, params):
    mask_vars = transform.init(KEY, params)

    def loss(params):
        seen, new_vars = transform.apply(params, mask_vars, key=KEY, step=3)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(seen)), (seen, new_vars)

    gradient, (seen, new_vars) = jax.grad(loss, has_aux=True)(params)
    stored = transform.prune(params, mask_vars)
    return Outcome(
        mask_vars,
        seen,
        new_vars,
        gradient,
        [transform.apply(params, mask_vars, key=None, step=3)[0] for _ in range(2)],
        transform.penalty(params, mask_vars.gates, 3),
        transform.scores(params, mask_vars),
        [stored, transform.prune(stored, mask_vars)],
    )


@pytest.fixture(params=TRANSFORMS, ids=TRANSFORMS, scope="module")
def run(request):
    return jax.jit(partial(outcome_of, TRANSFORMS[request.param]()))


@pytest.fixture(scope="module")
def outcome(run):
    return run(small_tree())


@pytest.fixture(params=TRANSFORMS, ids=TRANSFORMS)
def plain(request):
    return TRANSFORMS[request.param]()


def one_kernel():
    """A tree with one kernel that is masked."""
    dense, logits = (jax.random.normal(jax.random.key(0), shape) for shape in ((10, 8), (8, 2)))
    return {"dense": {"kernel": dense, "bias": jnp.ones(8)}, "logits": {"kernel": logits}}


ONE_OF_EACH_KIND = [
    "targeted_weight",
    "targeted_unit",
    "targeted_global",
    "random_targets_weight",
    "dropout_unit",
    "random_prune_weight",
    "l0_weight",
    "variational_unit",
    "smallify_unit",
    "gradual_weight",
    "chain",
]


def test_every_method_of_the_configs_is_in_the_table():
    names = {"none": "identity"} | {name: name for name in td.masks.METHODS if name != "none"}
    assert all(any(row.startswith(name) for row in TRANSFORMS) for name in names.values())


def test_without_init_it_works_or_says_what_is_missing(plain, params):
    shown = lambda: jax.eval_shape(lambda: plain.apply(params, td.MaskVars(), key=KEY, step=3)[0])  # noqa: E731
    carries = jax.tree.leaves(jax.eval_shape(plain.init, KEY, params))
    if not carries:
        assert jax.tree.structure(shown()) == jax.tree.structure(params)
        return
    with pytest.raises(td.UserError, match=r"give mask_vars = transform.init\(key, params\)"):
        shown()


def test_keeps_structure_shapes_and_dtypes(plain, params):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        mask_vars = jax.eval_shape(plain.init, KEY, params)
        apply = lambda params, mask_vars: plain.apply(params, mask_vars, key=KEY, step=3)  # noqa: E731
        seen, new_vars = jax.eval_shape(apply, params, mask_vars)
    assert jax.tree.structure(seen) == jax.tree.structure(params)
    assert jax.tree.structure(new_vars) == jax.tree.structure(mask_vars)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(seen), strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)


@pytest.mark.slow
def test_takes_and_gives_the_shapes_that_its_annotations_say(plain, params):
    """The whole suite checks them at run time, where everything is traced once more."""
    jax.eval_shape(partial(outcome_of, plain), params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_keeps_half_precision(plain, params, dtype):
    halves = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    mask_vars = jax.eval_shape(plain.init, KEY, halves)
    apply = lambda params, mask_vars: plain.apply(params, mask_vars, key=KEY, step=3)[0]  # noqa: E731
    seen = jax.eval_shape(apply, halves, mask_vars)
    assert {leaf.dtype for leaf in jax.tree.leaves(seen)} == {jnp.dtype(dtype)}


@pytest.fixture(params=ONE_OF_EACH_KIND, scope="module")
def of_each_kind(request):
    """A method, and its initialising and applying as one program."""
    transform = TRANSFORMS[request.param]()

    @jax.jit
    def shown(params):
        mask_vars = transform.init(KEY, params)
        return [transform.apply(params, mask_vars, key=key, step=3)[0] for key in (KEY, None)]

    return transform, shown


def test_float32_stays_where_jax_has_float64(plain, params):
    with jax.enable_x64(True):
        found = jax.eval_shape(partial(outcome_of, plain), params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} <= {"float32", "bool"}


def test_bfloat16_parameters_are_treated_as_the_same_numbers_in_float32(of_each_kind):
    _, shown = of_each_kind
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), one_kernel())
    wholes = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves)
    seen, expected = shown(halves), shown(wholes)
    for half, whole in zip(jax.tree.leaves(seen), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(half.astype(jnp.float32), whole, rtol=0.03, atol=1e-3)
        np.testing.assert_array_equal(half == 0, whole == 0)


def test_leaves_stem_logits_and_biases_alone(outcome, params):
    kernels = {*select_kernels(params), "block/0/bias"}  # which goes with its unit in a group
    leaves = map(jax.tree.leaves, (params, outcome.seen))
    for path, before, after in zip(_tree.paths(params), *leaves, strict=True):
        if path not in kernels:
            np.testing.assert_array_equal(before, after)


def test_same_key_and_step_give_the_same_bits(run, outcome, params):
    assert trees_equal(outcome, run(params))


def test_traces_once_for_all_steps(plain, params):
    traced = []
    counted = jax.jit(lambda *arguments, **named: traced.append(1) or plain.apply(*arguments, **named))
    mask_vars = jax.eval_shape(plain.init, KEY, params)
    for step in range(3):
        counted.trace(params, mask_vars, key=KEY, step=step)
    assert len(traced) == 1


def test_jit_gives_the_same_mask(of_each_kind):
    (transform, shown), params = of_each_kind, one_kernel()
    eager, _ = transform.apply(params, transform.init(KEY, params), key=KEY, step=3)
    compiled, _ = shown(params)
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_array_equal(a == 0, b == 0)
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_gradients_are_finite_and_zero_where_dropped(outcome):
    for g, s in zip(jax.tree.leaves(outcome.gradient), jax.tree.leaves(outcome.seen), strict=True):
        assert np.isfinite(g).all()
        np.testing.assert_array_equal(np.asarray(g)[np.asarray(s) == 0], 0.0)


def test_evaluation_needs_no_key_and_draws_nothing(outcome):
    assert trees_equal(*outcome.evaluated)


def test_penalty_is_a_finite_scalar(outcome):
    assert outcome.penalty.shape == () and np.isfinite(outcome.penalty)


def test_scores_are_non_negative_matrices_of_known_kernels(outcome, params):
    kernels = select_kernels(params)
    for path, score in outcome.scores.items():
        if path.endswith("/groups"):
            assert score.shape == (1, 1, kernels[path.removesuffix("/groups")].shape[-1]) and bool((score >= 0).all())
            continue
        *_, units = kernels[path].shape
        fan_in = kernels[path].size // units
        assert score.shape in {(fan_in, units), (1, units)} and bool((score >= 0).all())


def test_pruning_for_good_agrees_with_apply_and_is_idempotent(outcome, params):
    stored, again = outcome.stored
    assert jax.tree.structure(stored) == jax.tree.structure(params)
    assert trees_equal(stored, again)
    for kept, seen in zip(jax.tree.leaves(stored), jax.tree.leaves(outcome.evaluated[0]), strict=True):
        assert not np.asarray(seen)[np.asarray(kept) == 0].any()


@pytest.mark.parametrize(
    "name", [name if "targeted" in name else pytest.param(name, marks=pytest.mark.slow) for name in ONE_OF_EACH_KIND]
)
def test_one_device_and_eight_give_the_same_mask(name, params):
    transform = TRANSFORMS[name]()
    transform = transform._replace(apply=jax.jit(transform.apply))
    mask_vars = transform.init(KEY, params)
    mesh = jax.make_mesh((8,), ("batch",), (jax.sharding.AxisType.Auto,))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    alone, _ = transform.apply(params, mask_vars, key=KEY, step=3)
    spread, _ = transform.apply(*jax.device_put((params, mask_vars), replicated), key=KEY, step=3)
    assert len(jax.tree.leaves(spread)[0].sharding.device_set) == 8
    assert trees_equal(alone, spread)


@pytest.mark.parametrize("of_each_kind", [name for name in ONE_OF_EACH_KIND if "global" not in name], indirect=True)
def test_adding_a_layer_leaves_the_other_masks_unchanged(of_each_kind):
    (_, shown), params = of_each_kind, one_kernel()
    small, large = shown(params), shown({"another": {"kernel": jnp.ones((7, 4))}, **params})
    for alone, beside in zip(small, large, strict=True):
        assert trees_equal(alone, {name: leaf for name, leaf in beside.items() if name != "another"})
