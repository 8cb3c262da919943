"""Table 1: gradient and curvature against formulas worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from td.reproduce.table1 import change_of_loss, curvature

MATRIX = jnp.array([[2.0, 1.0, 0.0], [1.0, 4.0, -1.0], [0.0, -1.0, 6.0]])
WEIGHTS = jnp.array([1.0, -2.0, 3.0])


def quadratic(weights, batch):
    """`w.A.w/2 + batch . w`: the gradient is `A w + batch`, the Hessian A."""
    return weights @ MATRIX @ weights / 2 + batch @ weights


BATCHES = [jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 2.0])]


def test_a_quadratic_loss_is_predicted_exactly():
    # d = (0, -2, 0); g = A w + mean batch = (.5, -10, 21); -g.d = -20; d.H.d/2 = 8; so the loss falls by 12.
    change = change_of_loss(quadratic, WEIGHTS, jnp.array([0.0, 1.0, 0.0]), BATCHES)
    assert change == pytest.approx({"first_order": -20, "second_order": 8, "actual": -12, "predicted": 12})


def test_nothing_removed_changes_nothing():
    assert set(change_of_loss(quadratic, WEIGHTS, jnp.zeros(3), BATCHES).values()) == {0.0}


def test_the_matrix_is_that_of_the_formula():
    singles = [np.array([i]) for i in range(3)]
    expected = np.outer(WEIGHTS, WEIGHTS) * np.asarray(MATRIX)
    np.testing.assert_allclose(curvature(quadratic, WEIGHTS, singles, BATCHES), expected, rtol=1e-6)
    groups = [np.array([0, 2]), np.array([1])]
    # theta H theta = [[2, -2, 0], [-2, 16, 6], [0, 6, 54]], added up over {0, 2} and {1}
    np.testing.assert_allclose(curvature(quadratic, WEIGHTS, groups, BATCHES), [[56.0, 4.0], [4.0, 16.0]], rtol=1e-6)


def test_all_groups_together_are_the_whole_second_order_term():
    """The sum of the matrix is theta.H.theta, twice the second order of removing everything, over several chunks."""
    key = jax.random.key(0)
    weights = jax.random.normal(key, (60,))
    inputs = jax.random.normal(jax.random.fold_in(key, 1), (3, 7, 60))

    def loss(weights, batch):
        return jnp.mean(jnp.tanh(batch @ weights) ** 2)

    groups = np.array_split(np.arange(60), 45)
    matrix = curvature(loss, weights, groups, list(inputs))
    whole = change_of_loss(loss, weights, jnp.ones(60), list(inputs))
    assert matrix.sum() == pytest.approx(2 * whole["second_order"], rel=1e-4)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
