"""Training batches on their way to the devices, sent while the ones before are worked on."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from td.data import Batch, Dataset, Split
from td.data.part import Part
from td.errors import UserError
from td.execution import AXIS, Execution, replicated


class Piece(NamedTuple):
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
      pieces: `(first step, sizes of the calls) -> the pieces`.
      data: what lies on the devices all the time, () for nothing.
      fetch: `(data, batch of a piece) -> batch`, part of the compiled step.
    """

    pieces: Callable[[int, Iterator[int]], Generator[Piece, None, None]]
    data: Any
    fetch: Callable[[Any, Any], Any]


def make_feed(dataset: Dataset, batch_size: int, seed: int, execution: Execution, mesh: Mesh) -> Feed:
    """Decide what travels: whole batches, or, to a data set that is there already, the places of their examples.

    Args:
      dataset: for its training split and its task.
      batch_size: as in the config.
      seed: of the order.
      execution: for `steps_per_call` and `resident`.
      mesh: the devices.

    Returns:
      The `Feed`. Both ways give the same batches, bit for bit.

    Raises:
      UserError: several steps a call, but batches of several shapes; or `resident` for data that is not in memory.
    """
    source, task = dataset.train, dataset.task
    if execution.steps_per_call > 1 and len(source.row_counts(batch_size)) > 1:
        raise UserError("steps_per_call joins batches of one shape, and these have several: leave it at 1")
    in_memory = isinstance(source, Split)
    if execution.resident and not in_memory:
        raise UserError(
            "resident copies a data set that lies in memory as a whole, and this one does not: leave it out"
        )
    resident = mesh.devices.flat[0].platform != "cpu" if execution.resident is None else execution.resident
    if resident and isinstance(source, Split):
        places, data = source.train_places, jax.device_put((source.images, source.labels), replicated(mesh))
        return Feed(_sender(places, len, batch_size, seed, mesh), data, _gather)
    return Feed(_sender(source.train_batches, task.count, batch_size, seed, mesh), (), lambda _, batch: batch)


def _gather(data: Any, places: Any) -> Batch:
    images, labels = data
    return Batch(images[places], labels[places], jnp.ones(len(places), jnp.float32))


def _sender(
    stream: Callable[[int, int, int, Part], Generator[Any, None, None]],
    count: Callable[[Any], int],
    batch_size: int,
    seed: int,
    mesh: Mesh,
) -> Callable[[int, Iterator[int]], Generator[Piece, None, None]]:
    one, several = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), (None, AXIS)))
    part = Part(jax.process_index(), jax.process_count())

    def send(steps: int, batches: list[Any]) -> Piece:
        total = part.parts * sum(count(batch) for batch in batches)
        if steps == 1:
            return Piece(1, total, jax.make_array_from_process_local_data(one, batches[0]))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        return Piece(steps, total, jax.make_array_from_process_local_data(several, stacked))

    def pieces(first: int, sizes: Iterator[int]) -> Generator[Piece, None, None]:
        with closing(stream(batch_size, seed, first, part)) as batches:
            waiting: list[Piece] = []
            for steps in sizes:
                waiting.append(send(steps, list(islice(batches, steps))))
                if len(waiting) > 1:
                    yield waiting.pop(0)
            yield from waiting

    return pieces
