"""The slow corners of XLA's convolutions on CPUs, told in other words; on accelerators these are plain convolutions."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from td.models.few import CACHED, few_at_a_time
from td.models.winograd import winograd

MANY = 64
"""With so many channels and units multiplications cost more than the sums that Winograd's way takes in their place."""


def convolve(inputs: Array, kernel: Array, *arguments: Any, **settings: Any) -> Array:
    """`lax.conv_general_dilated`, but on a CPU two cases of 3x3 kernels in float32 are computed otherwise.

    On maps of at most 2x2, where XLA takes twenty times as long as for the same number of operations on larger ones,
    and over large inputs of many channels: by Winograd's way. The gradient of a kernel over many large maps of few
    channels takes XLA two to four times as long as the convolution: it becomes a sum of products of patches, a few
    images at a time.

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

    def whole(inputs: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(inputs, kernel, *arguments, **settings)

    strides, padding = arguments[:2]
    others = ("lhs_dilation", "rhs_dilation", "feature_group_count", "precision", "preferred_element_type")
    plain = all(settings.get(name) in (None, 1, (1, 1)) for name in others)
    around = tuple(strides) == (1, 1) and padding in (((1, 1), (1, 1)), [(1, 1), (1, 1)])
    if not (plain and around and kernel.shape[:2] == (3, 3) and inputs.dtype == kernel.dtype == jnp.float32):
        return whole(inputs, kernel)
    large = 9 * inputs.size >= 4 * CACHED
    if max(inputs.shape[1:3]) <= 2 or (large and min(kernel.shape[2:]) >= MANY):
        again = jax.checkpoint(winograd)  # weighed kernels and tiles are made anew for the gradient, not kept for it
        return lax.platform_dependent(inputs, kernel, cpu=again, default=whole)
    if large and min(inputs.shape[1:3]) >= 8:
        return _convolve_3x3(inputs, kernel)
    return whole(inputs, kernel)


_plain = partial(
    lax.conv_general_dilated,
    window_strides=(1, 1),
    padding=((1, 1), (1, 1)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


@jax.custom_jvp
def _convolve_3x3(inputs: Array, kernel: Array) -> Array:
    """The convolution itself; only its derivative by the kernel is told in other words."""
    return _plain(inputs, kernel)


@_convolve_3x3.defjvp
def _tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    inputs, kernel = primals
    return _convolve_3x3(inputs, kernel), _plain(tangents[0], kernel) + _kernel_tangent(inputs, tangents[1])


def _kernel_tangent(inputs: Array, kernel: Array) -> Array:
    """The convolution once more, written so that its transpose, the gradient of the kernel, is fast."""
    return lax.platform_dependent(inputs, kernel, cpu=_by_patches, default=_plain)


def _by_patches(inputs: Array, kernel: Array) -> Array:
    """The same convolution, a few images at a time. Its transpose is what is wanted: the gradient of the kernel."""
    _, height, width, channels = inputs.shape

    @partial(jax.checkpoint, prevent_cse=False)  # patches are made anew for the gradient, not kept for it
    def outputs(few: Array) -> Array:
        padded = jnp.pad(few, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        return jnp.concatenate(shifted, -1) @ kernel.reshape(9 * channels, -1)

    return few_at_a_time(outputs, inputs, 9 * height * width * channels, CACHED)
