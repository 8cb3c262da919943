"""The layers that all networks for images here are made of."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from td.base import RandomKey
from td.models.cpu_convolution import convolve


def lecun_normal(key: RandomKey, shape: tuple[int, ...], dtype: Any = float) -> Array:
    """Flax's default initial kernel, truncated normal of variance 1/fan_in, drawn as a matrix.

    The numbers are the same; but the program that draws `[3, 3, 8, 8]` takes XLA four times as long to compile as the
    one that draws `[72, 8]`, and a network has as many such programs as it has shapes.

    Example:
      >>> import jax
      >>> ours, flax = (f(jax.random.key(0), (3, 3, 2, 4)) for f in (lecun_normal, nn.initializers.lecun_normal()))
      >>> bool((ours == flax).all())
      True
    """
    matrix = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.lecun_normal()(key, matrix, dtype).reshape(shape)


def convolution(network: Any) -> Any:
    """A convolution without bias that computes in a network's `dtype`."""
    return partial(
        nn.Conv, use_bias=False, dtype=network.dtype, kernel_init=lecun_normal, conv_general_dilated=convolve
    )


def batch_norm(network: Any, train: bool) -> Any:
    """A BatchNorm with the constants that a network's attributes give."""
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=network.batch_norm_momentum,
        epsilon=network.batch_norm_epsilon,
        dtype=network.dtype,
    )
