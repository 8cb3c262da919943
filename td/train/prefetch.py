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
from td.data.base import Shard
from td.train.devices import AXIS, Execution, on_cpu, replicated


class Source(NamedTuple):
    """Training batches, or indices of the examples in them where the data set is on the devices.

    Attributes:
      batches: `(batch size, seed, first step, shard) -> batches`, on the host, without end.
      count: batch -> how many images or tokens it has.
      data: arrays that stay on the devices, () for none.
      fetch: `(data, batch) -> batch`, part of the compiled step.
    """

    batches: Callable[[int, int, int, Shard], Generator[Any, None, None]]
    count: Callable[[Any], int]
    data: Any
    fetch: Callable[[Any, Any], Any]


def make_source(dataset: Dataset, execution: Execution, mesh: Mesh) -> Source:
    """Choose between batches and indices; both give the same bits."""
    train, cached = dataset.train, execution.cache_on_device
    if isinstance(train, Split) and (not on_cpu(mesh) if cached is None else cached):
        data = jax.device_put((train.images, train.labels), replicated(mesh))
        return Source(train.train_index_batches, len, data, _gather)
    return Source(train.train_batches, dataset.task.count, (), lambda _, batch: batch)


def _gather(data: Any, indices: Any) -> Batch:
    images, labels = data
    return Batch(images[indices], labels[indices], jnp.ones(len(indices), jnp.float32))


def prefetch(
    source: Source, batch_size: int, seed: int, first: int, sizes: Iterator[int], mesh: Mesh
) -> Generator[tuple[int, int, Any], None, None]:
    """Yield `(steps, examples, batch)` for calls of the given sizes, each sent while the one before is computed.

    `examples` counts images or tokens; with several hosts, this one's times the number of hosts. The batch is on the
    devices, to which each host has sent its own rows; that of several steps has the step as first axis.
    """
    one, several = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), (None, AXIS)))
    shard = Shard(jax.process_index(), jax.process_count())
    with closing(source.batches(batch_size, seed, first, shard)) as batches:

        def send(steps: int) -> tuple[int, int, Any]:
            chosen = list(islice(batches, steps))
            examples = jax.process_count() * sum(source.count(batch) for batch in chosen)
            if steps == 1:
                return 1, examples, jax.make_array_from_process_local_data(one, chosen[0])
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)
            return steps, examples, jax.make_array_from_process_local_data(several, stacked)

        calls = map(send, sizes)
        ahead = list(islice(calls, 1))
        for call in calls:
            ahead.append(call)
            yield ahead.pop(0)
        yield from ahead
