"""Data sets: tasks, and splits of examples, visited in an order that depends on seed and step alone."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from td.base import AnyArray, RandomKey
from td.errors import UserError, check_at_least

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


class Shard(NamedTuple):
    """The rows of every batch that one of several hosts reads."""

    host: int
    hosts: int

    def of(self, rows: int) -> slice:
        """Select this host's rows; `make_mesh` has checked that they divide evenly."""
        each = rows // self.hosts
        return slice(self.host * each, (self.host + 1) * each)


WHOLE = Shard(0, 1)


class Batch(NamedTuple):
    """Images and labels of one step."""

    images: AnyArray
    labels: AnyArray
    weights: AnyArray  # 0 for the padding of the last evaluation batch, else 1

    @classmethod
    def blank(cls, rows: int, shape: tuple[int, ...]) -> "Batch":
        """Return black images of weight 1."""
        return cls(np.zeros((rows, *shape), np.uint8), np.zeros(rows, np.int32), np.ones(rows, np.float32))


@runtime_checkable
class Examples(Protocol):
    """One split. It has no state: a batch depends on seed and step, so a resumed run sees the same."""

    @property
    def size(self) -> int:
        """Number of examples."""

    def examples_per_step(self, batch_size: int) -> float:
        """Count the examples of a training step, on average; raises UserError if there are no such batches."""

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        """List the numbers of rows of training batches."""

    def blank_batch(self, rows: int) -> Any:
        """Return a batch of zeros, for its shape."""

    def train_batches(self, batch_size: int, seed: int, first: int, shard: Shard = WHOLE) -> Generator[Any, None, None]:
        """Yield the batches from step `first` on, without end; every example is seen once an epoch."""

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Any]:
        """Yield examples in random order, as evaluation sees them, in batches of one shape, without end."""

    def eval_batches(self, batch_size: int) -> Iterator[Any]:
        """Yield every example exactly once."""


class Dataset(NamedTuple):
    """One data set."""

    train: Examples
    evaluation: Examples  # the test split, or training examples for validation
    num_classes: int
    task: Task
    text: Any = None  # for translation, the SentencePiece processor that turns tokens into sentences
    identity: str = ""  # changes with the user's own files; empty for data sets that have a name
    class_names: tuple[str, ...] = ()  # of images, in order; empty if unknown


def images_per_step(batch_size: int, examples: int) -> float:
    """Return the batch size; raises UserError if it is not between 1 and the size of the split."""
    if not 0 < batch_size <= examples:
        raise UserError(f"data.batch_size={batch_size} is out of range: give 1 to {examples}, the training examples")
    return float(batch_size)


def split_indices(total: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into those to train on and `validation` others, at random but always the same."""
    if not 0 < validation < total:
        raise UserError(f"data.validation={validation} is out of range: hold out 0 to {total - 1} examples")
    order = np.random.default_rng(0).permutation(total)
    return order[validation:], order[:validation]


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Draw the order in which an epoch visits its examples: a permutation of `range(size)`."""
    return np.random.default_rng([seed, epoch]).permutation(size)
