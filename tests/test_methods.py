"""The record of a method: what the rest of td knows of it."""

import re

import jax
import jax.numpy as jnp
import pytest
import structure_networks
from conftest import ROOT

import td
from td.criteria import GRANULARITIES
from td.masks import METHODS, Method, find
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


PAGE = (ROOT / "docs" / "methods.md").read_text().partition("## Granularities")[2].partition("\n## ")[0]
ROWS = [line[1:-1].split("|") for line in PAGE.splitlines() if line.startswith("| `")]
TAKEN = {name: [cell.strip() == "yes" for cell in row[1:]] for row in ROWS for name in re.findall(r"`(\w+)`", row[0])}


@pytest.fixture(scope="module")
def vit():
    apply, params, inputs = structure_networks.vit()
    return params, td.trace(apply, params, *inputs)


def takes(name, granularity, params, structure):
    """Build a method and use it once, by shapes alone."""
    chosen = [argument for argument in ("granularity", "over") if argument in find(name).arguments]
    if not chosen:
        return granularity == "weight"
    settings = {"name": name, **dict.fromkeys(chosen, granularity)}

    def use(params):
        transform = td.masks.build(settings, structure)
        mask_vars = transform.init(jax.random.key(0), params)
        masked, _ = transform.apply(params, mask_vars, key=jax.random.key(1), step=0)
        return masked, transform.penalty(params, mask_vars.gates, 0)

    try:
        jax.eval_shape(use, params)
    except td.UserError as error:
        assert f"{chosen[0]}={granularity!r}" in str(error)
        return False
    return True


def test_the_page_has_the_granularities_of_every_method():
    assert {*TAKEN} == {*METHODS} - {"none"}


@pytest.mark.parametrize("name", TAKEN)
def test_a_method_takes_the_granularities_that_the_page_says(vit, name):
    assert TAKEN[name] == [takes(name, granularity, *vit) for granularity in GRANULARITIES]
