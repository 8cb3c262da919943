"""The record of a method: what the rest of td knows of it."""

import jax.numpy as jnp
import pytest

import td
from td.masks import Method, find
from td.train.config import weight_decay


def gated(cost: float = 1.0, half: td.base.StepCount = 10, *, kernels=td.KERNELS):
    """A method by import path."""
    return td.masks.l0(cost=cost, kernels=kernels)


def test_a_method_by_import_path_has_a_plain_record():
    record = find("test_methods:gated")
    assert record == Method(gated)
    assert record.durations == ("half",) and [*record.arguments] == ["cost", "half", "kernels"]


def test_it_may_bring_its_own_record(monkeypatch):
    monkeypatch.setattr(gated, "method", Method(gated, replaces_weight_decay=True), raising=False)
    assert weight_decay("test_methods:gated", 0.1) == 0.0
    transform = td.masks.build({"name": "test_methods:gated", "cost": 0.0}, kernels="w")
    assert transform.penalty({"w": jnp.ones((2, 2))}, {}, 0) == 0


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(td.UserError, match="did you mean 'targeted'"):
        find("targetd")
