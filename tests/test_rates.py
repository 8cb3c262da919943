"""Rates of every family for a budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.rates import allocate, kept_fraction

SHAPES = {"a": (6, 32), "b": (32, 24), "c": (24, 40), "d": (40, 3)}


def network(params, x):
    for name in "abc":
        x = jax.nn.relu(x @ params[name])
    return x @ params["d"]


PARAMS = {name: jax.random.normal(jax.random.key(i), shape) for i, (name, shape) in enumerate(SHAPES.items())}
STRUCTURE = td.trace(network, PARAMS, jnp.ones((1, 6)))


def compacted(rates):
    pruned = td.apply_mask(PARAMS, td.prune_mask(PARAMS, rates, "group", kernels=STRUCTURE))
    small = td.compact(network, pruned, jnp.ones((1, 6)))
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (small.params, PARAMS)]
    return {"flops": small.flops[1] / small.flops[0], "parameters": sizes[0] / sizes[1]}


def score(params):
    """What `c` says counts ten times as much."""
    return -10 * float(jnp.sum(params["c"] == 0)) - float(jnp.sum(params["b"] == 0))


@pytest.mark.parametrize("how", ["uniform", "erk", "global", "sensitivity"])
@pytest.mark.parametrize("budget", ["flops", "parameters"])
def test_the_compacted_network_meets_the_budget(how, budget):
    rates = allocate(STRUCTURE, PARAMS, how, budget=budget, target=0.6, score=score)
    assert compacted(rates)[budget] == pytest.approx(0.6, abs=0.02)
    assert kept_fraction(STRUCTURE, PARAMS, rates, budget) == pytest.approx(compacted(rates)[budget], abs=1e-6)


def test_what_the_trace_counts_is_what_compaction_counts():
    assert sum(cost.flops for cost in STRUCTURE.costs) == td.compact(network, PARAMS, jnp.ones((1, 6))).flops[0]


def test_more_sensitive_families_keep_more():
    rates = allocate(STRUCTURE, PARAMS, "sensitivity", target=0.6, score=score)
    assert rates["c/groups"] < rates["b/groups"]


def test_erk_keeps_more_of_small_kernels():
    rates = allocate(STRUCTURE, PARAMS, "erk", granularity="weight", budget="parameters", target=0.5)
    density = {name: 1 - rate for name, rate in rates.items()}
    assert density["b"] / density["c"] == pytest.approx(((32 + 24) / (32 * 24)) / ((24 + 40) / (24 * 40)), rel=1e-3)


def test_global_rates_are_those_of_one_ranking():
    rates = allocate(STRUCTURE, PARAMS, "global", granularity="weight", budget="parameters", target=0.5)
    mask = td.prune_mask(PARAMS, rates, "weight", scope="layer", kernels=STRUCTURE)
    kept = np.concatenate([np.abs(PARAMS[name])[np.asarray(mask[name])] for name in "bc"])
    gone = np.concatenate([np.abs(PARAMS[name])[~np.asarray(mask[name])] for name in "bc"])
    assert kept.min() >= gone.max() - 0.02


def test_trap_a_budget_out_of_reach():
    with pytest.raises(td.UserError, match="out of reach"):
        allocate(STRUCTURE, PARAMS, target=0.01)


def test_trap_sensitivity_without_a_score():
    with pytest.raises(td.UserError, match="score"):
        allocate(STRUCTURE, PARAMS, "sensitivity")
