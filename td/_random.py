"""Random bits of masks: those of `jax.random`, drawn without leaving the registers."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from td.base import RandomKey

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def bernoulli(key: RandomKey, rate: Float[Array, ""], shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Draw True with probability `rate`: bit for bit `jax.random.bernoulli`, at a small part of its cost on a CPU.

    JAX's rounds are a loop over whole arrays; written out, they fuse with whatever uses the draw. Every entry depends
    on its index alone, so the draw is the same however an array is spread over devices.

    Source: Salmon et al. 2011 (Threefry-2x32, 20 rounds, the generator of JAX).
    """
    if str(jax.random.key_impl(_typed(key))) != "threefry2x32" or math.prod(shape) >= 2**32:
        return jax.random.bernoulli(key, rate, shape)
    index = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(math.prod(shape[axis + 1 :]) for axis in range(len(shape))):
        index += lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    words = threefry(key, jnp.uint32(0), index)
    # A float of 23 random bits is below the rate where its bits, as an integer, are below this.
    limit = jnp.ceil(jnp.clip(rate, 0, 1) * jnp.float32(2**23)).astype(jnp.uint32)
    return ((words[0] ^ words[1]) >> 9) < limit


def _typed(key: RandomKey) -> RandomKey:
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def threefry(
    key: RandomKey, high: UInt32[Array, "..."], low: UInt32[Array, "..."]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """The block cipher behind `jax.random`: two random words for each counter.

    Source: Salmon et al. 2011; the example is the first known answer of the authors' Random123.
    """
    first, second = jax.random.key_data(_typed(key))
    keys = (first, second, first ^ second ^ jnp.uint32(PARITY))
    a, b = high + keys[0], low + keys[1]
    for group in range(1, 6):
        for distance in ROTATIONS[(group - 1) % 2]:
            a = a + b
            b = ((b << distance) | (b >> (32 - distance))) ^ a
        a, b = a + keys[group % 3], b + keys[(group + 1) % 3] + jnp.uint32(group)
    return a, b
