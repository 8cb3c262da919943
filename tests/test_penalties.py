"""L1 and group lasso against sums written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td

RNG = np.random.default_rng(0)
CONV, DENSE = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, 3, 2, 4), (6, 5)))
PARAMS = jax.tree.map(
    jnp.asarray,
    {"stem": {"kernel": np.ones((2, 2))}, "conv": {"kernel": CONV, "bias": np.ones(4)}, "dense": {"w": DENSE}},
)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", np.abs(CONV).sum() + np.abs(DENSE).sum()), ("mean", np.abs(CONV).mean() + np.abs(DENSE).mean())],
)
def test_l1_leaves_stem_and_biases_out(reduction, expected, jit):
    penalty = td.masks.l1(0.3, reduction).penalty
    value = (jax.jit(penalty) if jit else penalty)(PARAMS, (), 0)
    np.testing.assert_allclose(value, 0.3 * expected, rtol=1e-6)


def test_l1_in_bfloat16_sums_in_float32():
    params = {"w": jnp.full((300, 300), 0.01, jnp.bfloat16)}
    assert float(td.masks.l1(1.0, "sum", kernels=".*").penalty(params, (), 0)) == pytest.approx(
        90_000 * 0.01001, rel=1e-3
    )


def test_group_lasso_is_the_sum_of_column_norms():
    columns = [np.sqrt((matrix**2).sum(axis=0)) for matrix in (CONV.reshape(18, 4), DENSE)]
    expected = 0.3 * (np.sqrt(18) * columns[0].sum() + np.sqrt(6) * columns[1].sum())
    np.testing.assert_allclose(td.masks.group_lasso(0.3).penalty(PARAMS, (), 0), expected, rtol=1e-6)


def test_group_lasso_pulls_every_unit_with_the_same_force_and_leaves_empty_ones():
    matrix = jnp.array([[3.0, 0.0, 0.1], [4.0, 0.0, 0.0]])
    gradient = jax.grad(lambda w: td.masks.group_lasso(1.0, kernels=".*").penalty({"w": w}, (), 0))(matrix)
    np.testing.assert_allclose(jnp.linalg.norm(gradient, axis=0), np.sqrt(2) * np.array([1, 0, 1]), rtol=1e-6)


@pytest.mark.parametrize(
    "method",
    [td.masks.l1(2.0, kernels=".*"), td.masks.l1(2.0, "sum", kernels=".*"), td.masks.group_lasso(2.0, kernels=".*")],
)
def test_stacked_kernels_cost_what_the_same_kernels_cost_one_by_one(method):
    stack = jax.random.normal(jax.random.key(0), (3, 8, 4))
    together = method.penalty({"layers": {"kernel": stack, "bias": jnp.zeros((3, 4))}}, (), 0)
    alone = method.penalty({f"{i}": {"kernel": kernel} for i, kernel in enumerate(stack)}, (), 0)
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_a_cost_may_be_traced():
    penalties = jax.vmap(lambda cost: td.masks.l1(cost, "sum", kernels=".*").penalty({"w": jnp.ones((2, 3))}, (), 0))
    assert penalties(jnp.array([1.0, 2.0])).tolist() == [6.0, 12.0]


@pytest.mark.parametrize("factory", [td.masks.l1, td.masks.group_lasso, td.masks.l0, td.masks.smallify])
def test_a_negative_cost_is_told(factory):
    with pytest.raises(td.UserError, match=r"cost=-0.1 is out of range"):
        factory(cost=-0.1)
