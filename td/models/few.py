"""Images a few at a time, so that what is made of them stays in a CPU's cache."""

from collections.abc import Callable

from jax import lax
from jaxtyping import Array

CACHED = 2**20
"""So many numbers stay in the cache of a core or two."""


def few_at_a_time(function: Callable[[Array], Array], images: Array, numbers: int, cached: int = CACHED) -> Array:
    """`function(images)`, computed in equal parts of the batch, one after another.

    Args:
      function: treats every image by itself.
      images: `[batch, ...]`.
      numbers: how many the function makes of one image on its way.
      cached: how many may be worked on at once.

    Returns:
      What the function returns, `[batch, ...]`.

    Example:
      >>> import jax.numpy as jnp
      >>> few_at_a_time(jnp.square, jnp.arange(4.0), numbers=10, cached=25).tolist()  # two at a time
      [0.0, 1.0, 4.0, 9.0]
    """
    batch = images.shape[0]
    fitting = max(1, cached // numbers)
    size = max(size for size in range(1, min(fitting, batch) + 1) if batch % size == 0)
    if size == batch:
        return function(images)
    outputs = lax.map(function, images.reshape(-1, size, *images.shape[1:]))
    return outputs.reshape(batch, *outputs.shape[2:])
