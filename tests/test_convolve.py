"""Convolutions told in other words for CPUs are the same convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxprs_in_params

from td.models import convolve, few, winograd

SETTINGS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
AROUND = ((1, 1), (1, 1))


def plain(images, kernel):
    return lax.conv_general_dilated(images, kernel, (1, 1), AROUND, **SETTINGS)


def ours(images, kernel):
    return convolve.convolve(images, kernel, (1, 1), AROUND, **SETTINGS)


def derivatives(function, *, batch, height, width, channels=3, units=5):
    """Outputs, tangent, gradients and the gradients' tangents."""
    keys = jax.random.split(jax.random.key(0), 3)
    images, towards_images = jax.random.normal(keys[0], (2, batch, height, width, channels))
    kernel, towards_kernel = jax.random.normal(keys[1], (2, 3, 3, channels, units))
    weights = jax.random.normal(keys[2], (batch, height, width, units))
    at, towards = (images, kernel), (towards_images, towards_kernel)

    def total(images, kernel):
        return (weights * jnp.square(function(images, kernel))).mean()

    gradient = jax.grad(total, (0, 1))
    return jax.jit(lambda: (jax.jvp(function, at, towards), gradient(*at), jax.jvp(gradient, at, towards)))()


def assert_same_derivatives(function, **sizes):
    found, wanted = derivatives(function, **sizes), derivatives(plain, **sizes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), found, wanted)


def written(images, kernel):
    return str(jax.make_jaxpr(lambda *both: ours(*both))(images, kernel))  # a new function is traced anew


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 6), (5, 3), (8, 7)])
def test_winograd_has_the_derivatives_of_a_convolution(height, width):
    assert_same_derivatives(winograd.winograd, batch=2, height=height, width=width)


@pytest.mark.parametrize("batch", [6, 7])
def test_winograd_of_a_few_images_at_a_time_has_the_same_derivatives(batch):
    two = partial(winograd.winograd, cached=2 * 4 * 4 * 6 * 5)  # seven images are taken one by one
    assert_same_derivatives(two, batch=batch, height=4, width=6)


def test_winograd_multiplies_16_times_where_the_definition_does_36_times():
    images, kernel = jnp.ones((1, 8, 8, 64)), jnp.ones((3, 3, 64, 64))

    def products(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield 64 * equation.outvars[0].aval.size
            for inner in jaxprs_in_params(equation.params):
                yield from products(inner)

    assert sum(products(jax.make_jaxpr(winograd.winograd)(images, kernel).jaxpr)) == 16 / 36 * (8 * 8 * 9 * 64 * 64)


@pytest.mark.parametrize("batch", [6, 7])
def test_kernels_over_many_maps_have_the_same_derivatives_of_every_kind(monkeypatch, batch):
    monkeypatch.setattr(convolve, "CACHED", 9 * 8 * 9 * 3 * 4)  # two, or one, of the six or seven images fit
    assert_same_derivatives(ours, batch=batch, height=8, width=9)


def test_each_way_is_taken_where_it_pays(monkeypatch):
    images, kernel = jnp.ones((4, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    assert not any(way in written(images, kernel) for way in ("custom_jvp", "winograd"))
    assert "winograd" in written(images[:, :2, :2], kernel)
    monkeypatch.setattr(convolve, "CACHED", 9 * images.size // 4)
    assert "custom_jvp" in written(images, kernel)
    monkeypatch.setattr(convolve, "MANY", 3)
    assert "winograd" in written(images, kernel) and "winograd" not in written(images[:2], kernel)
    assert "winograd" not in written(images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


@pytest.mark.parametrize("change", [{"feature_group_count": 5}, {"rhs_dilation": (2, 2)}])
def test_other_convolutions_are_left_alone(change):
    images, kernel = jnp.ones((1, 2, 2, 5)), jnp.ones((3, 3, 1 if "feature_group_count" in change else 5, 5))
    for padding, strides in ((AROUND, (1, 1)), (((0, 1), (1, 0)), (1, 1)), (AROUND, (2, 2))):
        found = convolve.convolve(images, kernel, strides, padding, **SETTINGS, **change)
        wanted = lax.conv_general_dilated(images, kernel, strides, padding, **SETTINGS, **change)
        np.testing.assert_array_equal(found, wanted)


@settings(max_examples=20)
@given(batch=st.integers(1, 12), numbers=st.integers(1, 9), cached=st.integers(1, 100))
def test_images_a_few_at_a_time_are_all_treated_once_and_never_too_many_together(batch, numbers, cached):
    sizes = []

    def noted(images):
        sizes.append(len(images))
        return images + 1

    np.testing.assert_array_equal(few.few_at_a_time(noted, jnp.arange(batch), numbers, cached), 1 + np.arange(batch))
    assert all(batch % size == 0 and (size == 1 or size * numbers <= cached) for size in sizes)
