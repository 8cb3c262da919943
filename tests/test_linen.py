"""A linear layer called from outside."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from td import _linen

KEY = jax.random.key(11)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 2])
def test_linear_is_the_layer_without_its_bias(padding):
    inputs = jax.random.normal(KEY, (2, 6, 6, 4))
    layer = nn.Conv(6, (3, 3), strides=2, padding=padding, feature_group_count=2, kernel_dilation=1)
    variables = layer.init(KEY, inputs)
    variables["params"]["bias"] = jnp.arange(6.0)
    expected = layer.apply(variables, inputs) - jnp.arange(6.0)
    np.testing.assert_allclose(_linen.linear(layer, variables["params"]["kernel"], inputs), expected, atol=1e-5)
