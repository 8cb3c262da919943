"""Convolutions rewritten for CPUs are the same convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import td
from td import models
from td.models import layers
from td.models.layers import convolve
from td.program import trace

SETTINGS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
SAME = ((1, 1), (1, 1))


def plain(images, kernel):
    return lax.conv_general_dilated(images, kernel, (1, 1), SAME, **SETTINGS)


def ours(images, kernel):
    return convolve(images, kernel, (1, 1), SAME, **SETTINGS)


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


def assert_same_derivatives(**sizes):
    found, wanted = derivatives(ours, **sizes), derivatives(plain, **sizes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), found, wanted)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 2)])
def test_maps_of_at_most_2x2_have_the_derivatives_of_a_convolution(height, width):
    assert_same_derivatives(batch=2, height=height, width=width)


@pytest.mark.parametrize("batch", [6, 7])
def test_kernels_over_many_maps_have_the_same_derivatives_of_every_kind(monkeypatch, batch):
    monkeypatch.setattr(layers, "CACHED", 9 * 8 * 9 * 3 * 4)  # two, or one, of the six or seven images fit
    assert_same_derivatives(batch=batch, height=8, width=9)


def written(images, kernel):
    return str(jax.make_jaxpr(lambda *both: ours(*both))(images, kernel))  # a new function is traced again


def test_each_case_is_taken_where_it_pays(monkeypatch):
    images, kernel = jnp.ones((4, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    assert not any(case in written(images, kernel) for case in ("custom_jvp", "platform_index"))
    assert "platform_index" in written(images[:, :2, :2], kernel)
    assert "platform_index" not in written(images[:, :2, :2].astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    monkeypatch.setattr(layers, "CACHED", 9 * images.size // 4)
    assert "custom_jvp" in written(images, kernel)


@pytest.mark.parametrize("change", [{"feature_group_count": 5}, {"rhs_dilation": (2, 2)}])
def test_other_convolutions_are_left_alone(change):
    images, kernel = jnp.ones((1, 2, 2, 5)), jnp.ones((3, 3, 1 if "feature_group_count" in change else 5, 5))
    for padding, strides in ((SAME, (1, 1)), (((0, 1), (1, 0)), (1, 1)), (SAME, (2, 2))):
        found = convolve(images, kernel, strides, padding, **SETTINGS, **change)
        wanted = lax.conv_general_dilated(images, kernel, strides, padding, **SETTINGS, **change)
        np.testing.assert_array_equal(found, wanted)


def compacted_vgg():
    """Maps of 8x8, 4x4 and 2x2, half of the units of each dead."""
    model, images = (
        models.build({"name": "vgg", "stages": ((4,), (4,), (8,)), "hidden_units": (8,)}, 3),
        jnp.ones((2, 8, 8, 3)),
    )
    variables = model.init(jax.random.key(0), images)
    variables["params"] = td.apply_mask(variables["params"], td.prune_mask(variables["params"], 0.5, "unit"))
    small = td.compact(model.apply, variables, images)
    np.testing.assert_allclose(small.apply(small.params, images), model.apply(variables, images), atol=1e-5)
    assert small.flops[1] < small.flops[0]
    return str(jax.make_jaxpr(small.apply)(small.params, images))


@pytest.mark.slow
def test_a_compacted_network_keeps_the_product_for_maps_of_2x2_alone(monkeypatch):
    assert compacted_vgg().count("platform_index") == 1
    monkeypatch.setattr(trace, "CHOICES", {})
    assert "platform_index" not in compacted_vgg()
