"""The draws of masks: JAX's own numbers, and what masks need of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td._random import bernoulli, threefry

drawn = jax.jit(bernoulli, static_argnums=2)


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers_of_the_authors(key, counter, words):
    found = threefry(jnp.array(key, jnp.uint32), *jnp.array(counter, jnp.uint32))
    assert tuple(int(word) for word in found) == words


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.floats(0, 1, width=32),
    st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4)]),
)
def test_the_same_bits_as_jax(seed, rate, shape):
    for key in (jax.random.key(seed), jax.random.PRNGKey(seed)):
        np.testing.assert_array_equal(drawn(key, rate, shape), jax.random.bernoulli(key, rate, shape))


@pytest.mark.parametrize("rate", [0.0, 2**-23, 1 - 2**-24, 1.0])
def test_the_ends_of_the_range(rate):
    key = jax.random.key(3)
    np.testing.assert_array_equal(drawn(key, jnp.float32(rate), (500, 40)), jax.random.bernoulli(key, rate, (500, 40)))


def test_other_generators_are_left_to_jax():
    key = jax.random.key(0, impl="rbg")
    np.testing.assert_array_equal(drawn(key, 0.4, (9, 9)), jax.random.bernoulli(key, 0.4, (9, 9)))


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.66, 0.99])
def test_the_share_is_the_rate(rate):
    count = 1_000_000
    deviation = (rate * (1 - rate) / count) ** 0.5
    share = float(drawn(jax.random.key(1), rate, (1000, 1000)).mean())
    assert abs(share - rate) < 5 * deviation


def correlation(a, b):
    return float(np.corrcoef(np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel())[0, 1])


def test_steps_kernels_and_neighbours_are_independent():
    key, shape, bound = jax.random.key(2), (800, 500), 5 / (800 * 500) ** 0.5
    here = drawn(key, 0.5, shape)
    assert abs(correlation(here[1:], here[:-1])) < bound
    assert abs(correlation(here[:, 1:], here[:, :-1])) < bound
    for number in range(1, 4):  # what `tree.kernel_key` does with steps and paths
        assert abs(correlation(here, drawn(jax.random.fold_in(key, number), 0.5, shape))) < bound


def test_counts_per_column_vary_as_they_should():
    columns = np.asarray(drawn(jax.random.key(5), 0.3, (1000, 2000))).sum(axis=0)
    assert columns.var() == pytest.approx(1000 * 0.3 * 0.7, rel=0.15)
