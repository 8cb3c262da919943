"""What a network is fed with and what it is scored by, as pure functions of a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from td.data.augment import augment, standardize
from td.errors import check_at_least

PADDING, BEGIN, END, UNKNOWN = range(4)
"""The tokens that are no words: what fills up short sentences, begins and ends one, and stands for what is unknown."""


class Task(NamedTuple):
    """A task.

    Attributes:
      counted: what speed is counted in, "images" or "tokens".
      count: batch, on the host -> how many of those it has.
      inputs: `(batch, key)` -> what the model is called with; key None: not augmented.
      targets: batch -> `(labels, weights)` of one shape, the weights 0 where there is nothing to score.
    """

    counted: str
    count: Callable[[Any], int]
    inputs: Callable[[Any, Any], tuple[Array, ...]]
    targets: Callable[[Any], tuple[Array, Array]]


def _image_inputs(batch: Any, key: Any, pad: int, flip: bool) -> tuple[Array]:
    images = batch.images if key is None else augment(key, batch.images, pad, flip)
    return (standardize(images),)


def _image_targets(batch: Any) -> tuple[Array, Array]:
    return jnp.asarray(batch.labels), jnp.asarray(batch.weights)


def classification(pad: int = 0, flip: bool = False) -> Task:
    """Name what is on an image."""
    check_at_least("data.pad", pad)
    return Task("images", lambda batch: len(batch.labels), partial(_image_inputs, pad=pad, flip=flip), _image_targets)


def _text_inputs(batch: Any, key: Any) -> tuple[Array, Array]:
    del key
    target = jnp.asarray(batch.target)
    return jnp.asarray(batch.source), jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN)


def _text_targets(batch: Any) -> tuple[Array, Array]:
    target = jnp.asarray(batch.target)
    return target, (target != PADDING).astype(jnp.float32)


def translation() -> Task:
    """Say every token of a sentence's translation, from the sentence and the tokens before."""
    return Task("tokens", lambda batch: int((batch.target != PADDING).sum()), _text_inputs, _text_targets)
