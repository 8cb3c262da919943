"""Chains of methods."""

import pytest

import td


def test_a_method_that_acts_on_layers_must_be_the_last_of_a_chain():
    td.chain(td.random_prune(), td.masks.variational())
    with pytest.raises(td.UserError, match="must be the last of a chain"):
        td.chain(td.masks.variational(), td.random_prune())
