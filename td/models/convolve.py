"""The slow corners of XLA's convolutions on CPUs, told in other words; on accelerators these are plain convolutions."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

CACHED = 2**20
"""So many numbers of patches are worked on at once: they stay in the cache of a core or two."""


def convolve(inputs: Array, kernel: Array, *arguments: Any, **settings: Any) -> Array:
    """`lax.conv_general_dilated`, but on a CPU two cases of 3x3 kernels are computed otherwise.

    On maps of at most 2x2 XLA takes twenty times as long as for the same number of operations on larger ones: they
    become products of matrices. The gradient of a kernel over many large maps takes it two to four times as long as the
    convolution: it becomes a sum of products of patches, a few images at a time.

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
    if not (plain and around and kernel.shape[:2] == (3, 3)):
        return whole(inputs, kernel)
    if max(inputs.shape[1:3]) <= 2:
        return lax.platform_dependent(inputs, kernel, cpu=_convolve_2x2, default=whole)
    if 9 * inputs.size >= 4 * CACHED and min(inputs.shape[1:3]) >= 8:
        return _convolve_3x3(inputs, kernel)
    return whole(inputs, kernel)


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
    batch, height, width, channels = inputs.shape
    fitting = max(1, CACHED // (9 * height * width * channels))
    images = max(size for size in range(1, fitting + 1) if batch % size == 0)

    @partial(jax.checkpoint, prevent_cse=False)  # patches are made anew for the gradient, not kept for it
    def outputs(few: Array) -> Array:
        padded = jnp.pad(few, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        return jnp.concatenate(shifted, -1) @ kernel.reshape(9 * channels, -1)

    return lax.map(outputs, inputs.reshape(-1, images, *inputs.shape[1:])).reshape(*inputs.shape[:3], -1)
