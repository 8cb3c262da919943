"""Execution of a run: devices, steps per call, batches sent ahead. Nothing here changes the experiment or its masks."""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from td import _tree
from td.data import Batch, Dataset, Split
from td.data.base import Shard
from td.errors import UserError

AXIS = "batch"  # the one axis of the mesh: examples are spread over it, and parameters where that is asked for


class Execution(NamedTuple):
    """Settings that may differ between two machines that run the same experiment.

    Attributes:
      devices: The batch is sharded over these; None: all devices of all hosts.
      track: Where metrics go besides WORKDIR/metrics.jsonl: tensorboard, wandb, mlflow, trackio, several with commas.

    Rarely needed:
      steps_per_call: Steps per compiled program, where nothing is logged or saved between them; 0: 10 on accelerators,
        1 on CPUs, where a convolution in such a program is ten times slower.
      shard: Regular expressions on paths of the training state, such as kernel$: matching leaves are sharded over the
        devices instead of replicated.
      cache_on_device: Copy a data set that fits in memory to the devices once; default: on accelerators.
      profile: Record ten steps in WORKDIR/profile, for TensorBoard and Perfetto.
    """

    devices: Sequence[jax.Device] | None = None
    steps_per_call: int = 0
    shard: tuple[str, ...] = ()
    cache_on_device: bool | None = None
    profile: bool = False
    track: str = "tensorboard"


PLAIN = Execution()  # all devices, one step a call


def make_mesh(execution: Execution, rows: Sequence[int], what: str = "data.batch_size") -> Mesh:
    """Make a mesh of one axis, a host's devices next to each other, so that it reads consecutive rows of a batch."""
    devices = jax.devices() if execution.devices is None else execution.devices
    if any(count % len(devices) for count in rows):
        raise UserError(f"{what} cannot be sharded evenly over {len(devices)} devices (rows: {rows}): give a multiple")
    by_host = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(by_host), (AXIS,), axis_types=(AxisType.Auto,))


def on_cpu(mesh: Mesh) -> bool:
    """True if the devices are processors."""
    return mesh.devices.flat[0].platform == "cpu"


def steps_per_call(execution: Execution, mesh: Mesh, rows: Sequence[int]) -> int:
    """Choose how many steps one program does: 1 where batches have several shapes, which cannot be stacked."""
    return 1 if len(rows) > 1 else execution.steps_per_call or (1 if on_cpu(mesh) else 10)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding under which every device has a whole copy."""
    return NamedSharding(mesh, PartitionSpec())


def spread(batch: Any, mesh: Mesh) -> Any:
    """Spread a batch that every host has whole over the devices; one that does not divide evenly goes to each whole."""
    even = all(len(leaf) % mesh.size == 0 for leaf in jax.tree.leaves(batch))
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(AXIS) if even else PartitionSpec()))


def state_shardings(state: Any, mesh: Mesh, patterns: Sequence[str]) -> Any:
    """Spread the leaves whose path matches along their largest axis that divides evenly; replicate the others."""
    if patterns and jax.process_count() > 1 and on_cpu(mesh):
        # XLA's CPU code exchanges the many parts of one step in any order, each host in another.
        raise UserError("parameters cannot be sharded over the CPUs of several hosts: leave out --shard")
    paths = _tree.paths(state)
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(f"pattern {pattern!r} matches no leaf of the training state, such as {paths[-1]}")

    def sharding(path: str, leaf: Any) -> NamedSharding:
        even = [axis for axis, size in enumerate(leaf.shape) if size and size % mesh.size == 0]
        if not even or not any(re.search(pattern, path) for pattern in patterns):
            return replicated(mesh)
        axis = max(even, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))

    return jax.tree.map(sharding, jax.tree.unflatten(jax.tree.structure(state), paths), state)


def call_sizes(first: int, end: int, steps_per_call: int, alone: Sequence[int], after: Sequence[int]) -> Iterator[int]:
    """Cut a run into calls of `steps_per_call` steps and, around what happens between two steps, of one.

    A step at a multiple of an interval in `alone` is a call of its own, and so is the last one if there is any; at a
    multiple of one in `after` a call ends.
    """

    def happens(step: int, intervals: Sequence[int]) -> bool:
        return any(interval > 0 and step % interval == 0 for interval in intervals)

    while first < end:
        *inside, last = range(first + 1, first + steps_per_call + 1)
        single = happens(last, alone) or last > end or (last == end and any(alone))
        size = 1 if single or any(happens(step, [*alone, *after]) for step in inside) else steps_per_call
        yield size
        first += size


class Source(NamedTuple):
    """Training batches, or indices of the examples in them where the data set is on the devices."""

    batches: Callable[[int, int, int, Shard], Generator[Any, None, None]]  # of batch size, seed, first step, shard
    count: Callable[[Any], int]  # images or tokens of a batch
    data: Any  # arrays that stay on the devices, () for none
    fetch: Callable[[Any, Any], Any]  # `(data, batch) -> batch`, part of the compiled step


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
    """Yield `(steps, images or tokens, batch)` for calls of the given sizes, each sent while another is computed.

    Each host sends its own rows of a batch; that of several steps has the step as first axis.
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
