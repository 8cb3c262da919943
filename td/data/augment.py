"""Augmentation and scaling of image batches, inside jit, from an explicit key."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8

from td.base import AnyArray, RandomKey


def standardize(images: UInt8[AnyArray, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    """Subtract each image's mean and divide by its standard deviation, which is at least `1/sqrt(pixels)`.

    Source: the paper's input pipeline (per-image standardisation).
    """
    values = jnp.asarray(images, jnp.float32)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    deviation = values.std(axis=(1, 2, 3), keepdims=True)
    return (values - mean) / jnp.maximum(deviation, images[0].size ** -0.5)


def random_crop(key: RandomKey, images: AnyArray, pad: int) -> Array:
    """Pad with zeros on all sides and cut out a window of the original size at a random offset, per image."""
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)

    def cut(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, corners)


def random_flip(key: RandomKey, images: AnyArray) -> Array:
    """Mirror each image left to right with probability one half."""
    flipped = jax.random.bernoulli(key, 0.5, (len(images),))
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def augment(key: RandomKey, images: AnyArray, pad: int, flip: bool) -> AnyArray:
    """Random crop, then random flip, each where asked for."""
    crop_key, flip_key = jax.random.split(key)
    if pad:
        images = random_crop(crop_key, images, pad)
    return random_flip(flip_key, images) if flip else images
