"""Augmentation and scaling of image batches, inside jit, from an explicit key."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8

from td.base import AnyArray, RandomKey


def standardize(images: UInt8[AnyArray, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    """Subtract each image's mean and divide by its standard deviation, which is at least `1/sqrt(pixels)`.

    Args:
      images: uint8.

    Returns:
      float32 of the same shape.

    Example:
      >>> standardize(jnp.array([[[[0], [2]]]], jnp.uint8)).ravel().tolist()
      [-1.0, 1.0]

    Source: the paper's input pipeline (per-image standardisation).
    """
    values = jnp.asarray(images, jnp.float32)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    deviation = values.std(axis=(1, 2, 3), keepdims=True)
    return (values - mean) / jnp.maximum(deviation, images[0].size ** -0.5)


def random_crop(key: RandomKey, images: AnyArray, pad: int) -> Array:
    """Pad with zeros on all sides and cut out a window of the original size at a random place, per image.

    Args:
      key: one key for the batch.
      images: `[batch, height, width, channels]`.
      pad: pixels added on each side.

    Returns:
      Images of the same shape and dtype.

    Example:
      >>> random_crop(jax.random.key(0), jnp.ones((2, 8, 8, 3)), pad=4).shape
      (2, 8, 8, 3)
    """
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)

    def cut(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, corners)


def random_flip(key: RandomKey, images: AnyArray) -> Array:
    """Mirror each image left to right with probability one half.

    Args:
      key: one key for the batch.
      images: `[batch, height, width, channels]`.

    Returns:
      Images of the same shape and dtype.

    Example:
      >>> random_flip(jax.random.key(0), jnp.ones((2, 8, 8, 3))).shape
      (2, 8, 8, 3)
    """
    flipped = jax.random.bernoulli(key, 0.5, (len(images),))
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def augment(key: RandomKey, images: AnyArray, pad: int, flip: bool) -> AnyArray:
    """Random crop, then random flip, each where asked for.

    Args:
      key: one key for the batch.
      images: uint8 `[batch, height, width, channels]`.
      pad: 0 leaves out the crop.
      flip: False leaves out the flip.

    Returns:
      uint8 images of the same shape.

    Example:
      >>> augment(jax.random.key(0), jnp.ones((2, 8, 8, 3), jnp.uint8), pad=0, flip=False).shape
      (2, 8, 8, 3)
    """
    crop_key, flip_key = jax.random.split(key)
    if pad:
        images = random_crop(crop_key, images, pad)
    return random_flip(flip_key, images) if flip else images
