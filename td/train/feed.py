"""Training batches on their way to the devices: the next is sent while the one before is computed on."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from td.data import Batch, Dataset, Split
from td.data.base import Part
from td.errors import UserError
from td.train.devices import AXIS, Execution, replicated, steps_per_call


class Chunk(NamedTuple):
    """What one call of the training step gets.

    Attributes:
      steps: how many it does.
      examples: images or tokens in it; with several hosts, as many from each as this one has.
      batch: on the devices, to which each host has sent its own rows; of several steps, with the step as first axis.
    """

    steps: int
    examples: int
    batch: Any


class Feed(NamedTuple):
    """A run's training data.

    Attributes:
      chunks: `(first step, sizes of the calls) -> the chunks`.
      data: what stays on the devices, () for nothing.
      fetch: `(data, batch of a chunk) -> batch`, part of the compiled step.
    """

    chunks: Callable[[int, Iterator[int]], Generator[Chunk, None, None]]
    data: Any
    fetch: Callable[[Any, Any], Any]


def make_feed(dataset: Dataset, batch_size: int, seed: int, execution: Execution, mesh: Mesh) -> Feed:
    """Decide what is sent: whole batches, or, where the data set is on the devices already, indices of examples.

    Both ways give the same batches, bit for bit.
    """
    source, task = dataset.train, dataset.task
    if steps_per_call(execution, mesh, source.row_counts(batch_size)) > 1 and len(source.row_counts(batch_size)) > 1:
        raise UserError("steps_per_call joins batches of one shape, and these have several: leave it at 1")
    in_memory = isinstance(source, Split)
    if execution.cache_on_device and not in_memory:
        raise UserError("--cache_on_device copies a data set that is in memory as a whole, and this one is not")
    cached = mesh.devices.flat[0].platform != "cpu" if execution.cache_on_device is None else execution.cache_on_device
    if cached and isinstance(source, Split):
        indices, data = source.train_index_batches, jax.device_put((source.images, source.labels), replicated(mesh))
        return Feed(_sender(indices, len, batch_size, seed, mesh), data, _gather)
    return Feed(_sender(source.train_batches, task.count, batch_size, seed, mesh), (), lambda _, batch: batch)


def _gather(data: Any, indices: Any) -> Batch:
    images, labels = data
    return Batch(images[indices], labels[indices], jnp.ones(len(indices), jnp.float32))


def _sender(
    stream: Callable[[int, int, int, Part], Generator[Any, None, None]],
    count: Callable[[Any], int],
    batch_size: int,
    seed: int,
    mesh: Mesh,
) -> Callable[[int, Iterator[int]], Generator[Chunk, None, None]]:
    one, several = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), (None, AXIS)))
    part = Part(jax.process_index(), jax.process_count())

    def send(steps: int, batches: list[Any]) -> Chunk:
        total = part.parts * sum(count(batch) for batch in batches)
        if steps == 1:
            return Chunk(1, total, jax.make_array_from_process_local_data(one, batches[0]))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        return Chunk(steps, total, jax.make_array_from_process_local_data(several, stacked))

    def chunks(first: int, sizes: Iterator[int]) -> Generator[Chunk, None, None]:
        with closing(stream(batch_size, seed, first, part)) as batches:
            waiting: list[Chunk] = []
            for steps in sizes:
                waiting.append(send(steps, list(islice(batches, steps))))
                if len(waiting) > 1:
                    yield waiting.pop(0)
            yield from waiting

    return chunks
