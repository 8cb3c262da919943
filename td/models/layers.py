"""Layers of the networks for images; 3x3 convolutions are rewritten for XLA:CPU, which is slow at two kinds of them."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from td.base import RandomKey
from td.program.trace import register_platform_choice

CACHED = 2**20
"""Numbers that stay in the cache of a core or two."""


def convolve(inputs: Array, kernel: Array, *arguments: Any, **settings: Any) -> Array:
    """Convolve as `lax.conv_general_dilated`; two cases of 3x3 kernels in float32 are products of patches on CPUs.

    These are the gradient of a kernel over many large maps, which takes XLA two to four times as long as the
    convolution, and maps of at most 2x2, which take twenty times as long as larger ones with as many operations.
    The case depends on shapes alone; the outputs of an image never depend on the batch size.
    """

    def plain(inputs: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(inputs, kernel, *arguments, **settings)

    strides, padding = arguments[:2]
    others = ("lhs_dilation", "rhs_dilation", "feature_group_count", "precision", "preferred_element_type")
    usual = all(settings.get(name) in (None, 1, (1, 1)) for name in others)
    same = tuple(strides) == (1, 1) and padding in (((1, 1), (1, 1)), [(1, 1), (1, 1)])
    if not (usual and same and kernel.shape[:2] == (3, 3) and inputs.dtype == kernel.dtype == jnp.float32):
        return plain(inputs, kernel)
    if max(inputs.shape[1:3]) <= 2:
        return lax.platform_dependent(inputs, kernel, cpu=patches_product, default=plain)
    known = isinstance(inputs.shape[0], int)  # a program for batches of any size is exported, not trained
    if known and min(inputs.shape[1:3]) >= 8 and 9 * inputs.size >= 4 * CACHED:
        return _convolve_3x3(inputs, kernel)
    return plain(inputs, kernel)


_plain = partial(
    lax.conv_general_dilated,
    window_strides=(1, 1),
    padding=((1, 1), (1, 1)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


@jax.custom_jvp
def _convolve_3x3(inputs: Array, kernel: Array) -> Array:
    """Convolve; only the derivative by the kernel is rewritten."""
    return _plain(inputs, kernel)


@_convolve_3x3.defjvp
def _tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    inputs, kernel = primals
    by_kernel = lax.platform_dependent(inputs, tangents[1], cpu=_chunked_product, default=_plain)
    return _convolve_3x3(inputs, kernel), _plain(tangents[0], kernel) + by_kernel


def patches_product(inputs: Array, kernel: Array) -> Array:
    """A 3x3 convolution, padded by one, as one product of matrices, patches times kernel."""
    _, height, width, channels = inputs.shape
    padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(9 * channels, -1)


def _small_map_again(bind: Callable[..., Any], params: Mapping[str, Any], *avals: Any) -> Callable[..., Any] | None:
    """The choice that `convolve` makes for small maps, for `td.compact` to make with fewer channels."""
    ours = jax.make_jaxpr(_plain)(*avals).eqns[0].params if [aval.ndim for aval in avals] == [4, 4] else None
    if params != ours or avals[1].shape[:2] != (3, 3) or max(avals[0].shape[1:3]) > 2:
        return None

    def choose(inputs: Array, kernel: Array, **settings: Any) -> Any:
        return lax.platform_dependent(inputs, kernel, cpu=patches_product, default=partial(bind, **settings))

    return choose


register_platform_choice("conv_general_dilated", _small_map_again)


def _chunked_product(inputs: Array, kernel: Array) -> Array:
    """Convolve chunks of the batch whose patches stay in cache; the transpose is the gradient of the kernel."""
    batch = inputs.shape[0]
    fitting = max(1, CACHED // (9 * math.prod(inputs.shape[1:])))
    size = max(size for size in range(1, min(fitting, batch) + 1) if batch % size == 0)
    # Patches are recomputed for the gradient, not kept.
    product = jax.checkpoint(partial(patches_product, kernel=kernel), prevent_cse=False)
    outputs = lax.map(product, inputs.reshape(-1, size, *inputs.shape[1:]))
    return outputs.reshape(batch, *outputs.shape[2:])


def lecun_normal(key: RandomKey, shape: tuple[int, ...], dtype: Any = float) -> Array:
    """Draw Flax's default kernel, truncated normal of variance 1/fan_in, as a matrix: XLA compiles that 4x faster."""
    matrix = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.lecun_normal()(key, matrix, dtype).reshape(shape)


def convolution(network: Any) -> Any:
    """Build convolutions without bias that compute in a network's `dtype`."""
    settings = {"dtype": network.dtype, "kernel_init": lecun_normal, "conv_general_dilated": convolve}
    return partial(nn.Conv, use_bias=False, **settings)


def batch_norm(network: Any, train: bool) -> Any:
    """Build BatchNorms with the constants of a network."""
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=network.batch_norm_momentum,
        epsilon=network.batch_norm_epsilon,
        dtype=network.dtype,
    )
