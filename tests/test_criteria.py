"""Importances of weights and units against numpy, and criteria that are not known or lack their measurement."""

import jax.numpy as jnp
import numpy as np
import pytest

import td
from td import criteria

RNG = np.random.default_rng(8)
W, G = RNG.normal(size=(2, 6, 4)).astype(np.float32)
SQUARES, X = (np.abs(RNG.normal(size=shape)).astype(np.float32) for shape in ((6, 4), (6, 1)))
U = RNG.random((6, 4)).astype(np.float32)

EXPECTED = {
    "magnitude": (None, np.abs(W), np.sqrt((W**2).sum(0))),
    "l1": (None, np.abs(W), np.abs(W).sum(0)),
    "random": (U, U, U[0]),
    "taylor": (G, np.abs(W * G), np.abs((W * G).sum(0))),
    "fisher": (SQUARES, W**2 * SQUARES / 2, (W**2 * SQUARES / 2).sum(0)),
    "obs": (SQUARES, SQUARES, SQUARES.sum(0)),
    "activation": (X, np.abs(W) * X, np.sqrt(((W * X) ** 2).sum(0))),
}


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_golden_importances(name):
    measured, of_weights, of_units = EXPECTED[name]
    measured = None if measured is None else jnp.asarray(measured)
    for granularity, expected in (("weight", of_weights), ("unit", of_units[None])):
        found = criteria.importance(jnp.asarray(W), granularity, name, measured)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_saliencies_are_signed_importances_of_weights_and_importances_of_units(name):
    measured = None if EXPECTED[name][0] is None else jnp.asarray(EXPECTED[name][0])
    plain, signed = (
        {g: function(-jnp.asarray(W), g, name, measured) for g in criteria.OF_KERNELS}
        for function in (criteria.importance, criteria.saliency)
    )
    np.testing.assert_array_equal(jnp.abs(signed["weight"]), plain["weight"])
    np.testing.assert_array_equal(signed["unit"], plain["unit"])
    if name == "magnitude":
        np.testing.assert_array_equal(signed["weight"], -W)


def test_a_criterion_without_its_measurement_is_told():
    with pytest.raises(td.UserError, match="'fisher' needs its squared gradient measured first"):
        td.prune_mask({"w": jnp.ones((2, 2))}, 0.5, criterion="fisher", kernels=".*")
    with pytest.raises(td.UserError, match="did you mean 'magnitude'"):
        td.prune_mask({"w": jnp.ones((2, 2))}, 0.5, criterion="magnitud", kernels=".*")
    with pytest.raises(td.UserError, match="'math:sqrt' is not a td.criteria.Criterion"):
        criteria.criterion_of("math:sqrt")
    with pytest.raises(td.UserError, match="criterion='taylor' is not known"):
        td.targeted(criterion="taylor", kernels=".*")
