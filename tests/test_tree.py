"""Path names of leaves."""

import jax.numpy as jnp
import pytest

import td


def test_an_equal_name_for_two_leaves_is_told():
    params = {"a/w": jnp.ones((2, 2)), "a": {"w": jnp.ones((2, 2))}}
    with pytest.raises(td.UserError, match="2 leaves of the tree are called 'a/w'"):
        td.prune_mask(params, 0.5)
