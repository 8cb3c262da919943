"""Exact selection against sorting, side by side: pytest tests/benchmark_select.py (needs the extra `bench`).

Not collected by the test run: speed is measured here and asserted as a ratio, never in a timed test.
"""

import time

import jax
import jax.numpy as jnp
import pytest

from td.select import lowest, share_to_count

SCORES = jnp.abs(jax.random.normal(jax.random.key(0), (5760, 640)))


def by_sorting(scores, proportion):
    count = share_to_count(proportion, scores.shape[0])
    ranked = jnp.sort(scores, axis=0)
    return scores < jax.lax.dynamic_slice_in_dim(ranked, jnp.minimum(count, len(ranked) - 1), 1)


METHODS = {"bisection": jax.jit(lowest), "sort": jax.jit(by_sorting)}


@pytest.mark.parametrize("name", METHODS)
def test_speed(benchmark, name):
    benchmark(lambda: METHODS[name](SCORES, 0.75).block_until_ready())


def test_both_mark_the_same():
    assert bool((METHODS["bisection"](SCORES, 0.75) == METHODS["sort"](SCORES, 0.75)).all())


def test_bisection_is_at_least_three_times_as_fast():
    def seconds(function):
        start = time.perf_counter()
        function(SCORES, 0.75).block_until_ready()
        return time.perf_counter() - start

    for function in METHODS.values():
        seconds(function)
    ratios = sorted(seconds(METHODS["sort"]) / seconds(METHODS["bisection"]) for _ in range(5))
    assert ratios[2] > 3
