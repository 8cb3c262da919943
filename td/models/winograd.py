"""3x3 convolutions with fewer multiplications (Lavin & Gray 2016, arXiv:1509.09308, section 4.1)."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from td.models.few import CACHED, few_at_a_time

INPUTS = ((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0))
KERNEL = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
OUTPUTS = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))
"""Rows of the paper's `B'`, `G` and `A'`, and so for the two above."""

Grid = Sequence[Sequence[Array]]


@partial(jax.jit, static_argnames="cached")  # traced once for all layers of one shape
def winograd(
    inputs: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels units"],
    cached: int = CACHED,
) -> Float[Array, "batch height width units"]:
    """A convolution of stride 1 that keeps the size of the map: `Y = A [(G g G') * (B d B')] A'`.

    `d` are 4x4 inputs, `g` the kernel, `Y` 2x2 outputs (equation 8): 16 multiplications a channel and unit where the
    definition takes 36. The gradients are computed likewise, for they are transposed convolutions.

    Args:
      inputs: float32; in half precision the sums would cost digits.
      kernel: likewise.
      cached: how many numbers of tiles are worked on at once.

    Returns:
      What `lax.conv_general_dilated` returns, to rounding.

    Example:
      >>> winograd(jnp.ones((1, 2, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
      [[4.0, 6.0, 4.0], [4.0, 6.0, 4.0]]
    """
    _, height, width, channels = inputs.shape
    weighed = _both_ways(KERNEL, kernel)
    outputs = jax.checkpoint(partial(_convolve, weighed=weighed), prevent_cse=False)
    return few_at_a_time(outputs, inputs, 4 * height * width * max(channels, kernel.shape[3]), cached)


def _convolve(inputs: Array, weighed: Grid) -> Array:
    batch, height, width, _ = inputs.shape
    rows, columns = -(-height // 2), -(-width // 2)
    padded = jnp.pad(inputs, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    tiles = [[padded[:, y : y + 2 * rows : 2, x : x + 2 * columns : 2] for x in range(4)] for y in range(4)]
    seen = _both_ways(INPUTS, tiles)
    products = [[a @ b for a, b in zip(*pair, strict=True)] for pair in zip(seen, weighed, strict=True)]
    outputs = jnp.stack([jnp.stack(row, 3) for row in _both_ways(OUTPUTS, products)], 2)
    return outputs.reshape(batch, 2 * rows, 2 * columns, -1)[:, :height, :width]


def _both_ways(factors: Sequence[Sequence[float]], grid: Grid | Array) -> list[list[Array]]:
    """`factors @ grid @ factors.T` of a grid of arrays, written out: factors of zero and one cost nothing."""
    halves = [_combine(factors, column) for column in zip(*grid, strict=True)]
    return [_combine(factors, row) for row in zip(*halves, strict=True)]


def _combine(factors: Sequence[Sequence[float]], parts: Sequence[Array]) -> list[Array]:
    def combined(row: Sequence[float]) -> Array:
        terms = [part if factor == 1 else factor * part for factor, part in zip(row, parts, strict=True) if factor]
        return sum(terms[1:], start=terms[0])

    return [combined(row) for row in factors]
