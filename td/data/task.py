"""Tasks: model inputs and targets as pure functions of a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8

from td.base import AnyArray, RandomKey
from td.errors import check_at_least

PADDING, BEGIN, END, UNKNOWN = range(4)
"""The special tokens."""


class Task(NamedTuple):
    """Inputs and targets of a model."""

    counted: str  # the unit of throughput, "images" or "tokens"
    count: Callable[[Any], int]  # batch, on the host -> number of those
    inputs: Callable[[Any, Any], tuple[Array, ...]]  # `(batch, key)` -> arguments; key None: no augmentation
    targets: Callable[[Any], tuple[Array, Array]]  # batch -> `(labels, weights)` of one shape; weight 0: not scored


def classification(pad: int = 0, flip: bool = False) -> Task:
    """Predict the class of an image."""
    check_at_least("data.pad", pad)

    def inputs(batch: Any, key: Any) -> tuple[Array]:
        return (standardize(batch.images if key is None else augment(key, batch.images, pad, flip)),)

    def targets(batch: Any) -> tuple[Array, Array]:
        return jnp.asarray(batch.labels), jnp.asarray(batch.weights)

    return Task("images", lambda batch: len(batch.labels), inputs, targets)


def standardize(images: UInt8[AnyArray, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    """Subtract each image's mean and divide by its standard deviation, at least `1/sqrt(pixels)`, as the paper."""
    values = jnp.asarray(images, jnp.float32)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    deviation = values.std(axis=(1, 2, 3), keepdims=True)
    return (values - mean) / jnp.maximum(deviation, images[0].size ** -0.5)


def augment(key: RandomKey, images: AnyArray, pad: int, flip: bool) -> AnyArray:
    """Apply random crops, then random flips."""
    crop_key, flip_key = jax.random.split(key)
    if pad:
        images = random_crop(crop_key, images, pad)
    return random_flip(flip_key, images) if flip else images


def random_crop(key: RandomKey, images: AnyArray, pad: int) -> Array:
    """Pad each image with zeros on all sides and cut out a window of the original size at a random offset."""
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)
    return jax.vmap(lambda image, corner: lax.dynamic_slice(image, (*corner, 0), images.shape[1:]))(padded, corners)


def random_flip(key: RandomKey, images: AnyArray) -> Array:
    """Mirror each image left to right with probability one half."""
    flipped = jax.random.bernoulli(key, 0.5, (len(images),))
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def translation() -> Task:
    """Predict every token of a translation from the source sentence and the tokens before."""

    def inputs(batch: Any, _: Any) -> tuple[Array, Array]:
        target = jnp.asarray(batch.target)
        return jnp.asarray(batch.source), jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN)

    def targets(batch: Any) -> tuple[Array, Array]:
        target = jnp.asarray(batch.target)
        return target, (target != PADDING).astype(jnp.float32)

    return Task("tokens", lambda batch: int((batch.target != PADDING).sum()), inputs, targets)
