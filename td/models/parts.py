"""The layers that all networks for images here are made of."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from td.base import RandomKey


def lecun_normal(key: RandomKey, shape: tuple[int, ...], dtype: Any = float) -> Array:
    """Flax's default initial kernel, truncated normal of variance 1/fan_in, drawn as a matrix.

    The numbers are the same; but the program that draws `[3, 3, 8, 8]` takes XLA four times as long to compile as the
    one that draws `[72, 8]`, and a network has as many such programs as it has shapes.

    Args:
      key: one key for the kernel.
      shape: the last axis is the output unit.
      dtype: of the kernel.

    Returns:
      The kernel.

    Example:
      >>> import jax
      >>> ours, flax = (f(jax.random.key(0), (3, 3, 2, 4)) for f in (lecun_normal, nn.initializers.lecun_normal()))
      >>> bool((ours == flax).all())
      True
    """
    matrix = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.lecun_normal()(key, matrix, dtype).reshape(shape)


def convolve(inputs: Array, kernel: Array, *arguments: Any, **settings: Any) -> Array:
    """`lax.conv_general_dilated`, but 3x3 kernels on maps of at most 2x2 become products of matrices on a CPU.

    There XLA takes twenty times as long for these as for the same number of operations on larger maps; three
    quarters of a training step of VGG-16 were spent on its last block.

    Args:
      inputs: `[batch, height, width, channels]`.
      kernel: `[height, width, channels, units]`.
      *arguments: of `lax.conv_general_dilated`.
      **settings: likewise.

    Returns:
      `[batch, height, width, units]`.

    Example:
      >>> from jax import random
      >>> images, kernel = random.normal(random.key(0), (1, 2, 2, 3)), random.normal(random.key(1), (3, 3, 3, 4))
      >>> convolve(images, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")).shape
      (1, 2, 2, 4)
    """
    whole: Callable[..., Array] = partial(lax.conv_general_dilated, **settings)
    strides, padding = arguments[:2]
    plain = all(
        settings.get(name) in (None, 1, (1, 1)) for name in ("lhs_dilation", "rhs_dilation", "feature_group_count")
    )
    around = tuple(strides) == (1, 1) and padding in (((1, 1), (1, 1)), [(1, 1), (1, 1)])
    if not (plain and around and max(inputs.shape[1:3]) <= 2 and kernel.shape[:2] == (3, 3)):
        return whole(inputs, kernel, *arguments)
    return lax.platform_dependent(
        inputs, kernel, cpu=_convolve_2x2, default=lambda inputs, kernel: whole(inputs, kernel, *arguments)
    )


def _convolve_2x2(inputs: Array, kernel: Array) -> Array:
    """Every output sees the whole map: through the part of the kernel that lies on it."""
    batch, height, width, _ = inputs.shape
    flat, units = inputs.reshape(batch, -1), kernel.shape[-1]
    rows = [
        jnp.stack(
            [flat @ kernel[1 - y : 1 - y + height, 1 - x : 1 - x + width].reshape(-1, units) for x in range(width)], 1
        )
        for y in range(height)
    ]
    return jnp.stack(rows, 1)


def convolution(network: Any) -> Any:
    """A convolution without bias that computes in a network's `dtype`.

    Args:
      network: has `dtype`.

    Returns:
      A constructor of `nn.Conv`.
    """
    return partial(
        nn.Conv, use_bias=False, dtype=network.dtype, kernel_init=lecun_normal, conv_general_dilated=convolve
    )


def batch_norm(network: Any, train: bool) -> Any:
    """A BatchNorm with the constants that a network's attributes give.

    Args:
      network: has `batch_norm_momentum`, `batch_norm_epsilon` and `dtype`.
      train: whether to use the batch's own statistics.

    Returns:
      A constructor of `nn.BatchNorm`.
    """
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=network.batch_norm_momentum,
        epsilon=network.batch_norm_epsilon,
        dtype=network.dtype,
    )
