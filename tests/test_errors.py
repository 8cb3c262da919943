"""Shares are checked whatever their type."""

import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.errors import check_share


@pytest.mark.parametrize("value", [np.float64(1.5), np.float32(-0.1), jnp.float32(2.0), float("nan")])
def test_a_share_of_any_number_type_is_checked(value):
    with pytest.raises(td.UserError, match="out of range"):
        check_share("drop_rate", value)


@pytest.mark.parametrize("value", ["half", True, None])
def test_a_share_that_is_no_number_is_told(value):
    with pytest.raises(td.UserError, match="not a number"):
        check_share("drop_rate", value)
