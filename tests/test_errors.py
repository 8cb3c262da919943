"""Fractions of every type are checked; errors name the valid name nearest to an unknown one."""

import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.errors import call_from_table, check_fraction, entry


@pytest.mark.parametrize("value", [np.float64(1.5), np.float32(-0.1), jnp.float32(2.0), float("nan")])
def test_a_share_of_any_number_type_is_checked(value):
    with pytest.raises(td.UserError, match="out of range"):
        check_fraction("drop_rate", value)


@pytest.mark.parametrize("value", ["half", True, None])
def test_a_share_that_is_no_number_is_told(value):
    with pytest.raises(td.UserError, match="not a number"):
        check_fraction("drop_rate", value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "hlaf"}, "unknown share 'hlaf': did you mean 'half'"),
        ({"name": "half", "off": 3}, "takes no 'off': did you mean 'of'"),
        ({"name": "maths:hypot"}, "cannot be imported"),
    ],
)
def test_what_a_table_lacks_is_told(settings, told):
    table = {"half": lambda of: of / 2}
    assert call_from_table(table, {"name": "half", "of": 3}, "share", by=4) == 1.5
    with pytest.raises(td.UserError, match=told):
        call_from_table(table, settings, "share")
    assert entry(table, "math:hypot", "function")(3, 4) == 5
