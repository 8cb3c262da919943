"""How a run is carried out: on which devices, in which chunks. The experiment is the same, and so are its masks."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from td import tree
from td.errors import UserError, check_at_least

AXIS = "batch"
"""The one axis of the mesh: examples are spread over it, and parameters where that is asked for."""


class Execution(NamedTuple):
    """What may differ between two machines that run the same experiment.

    Attributes:
      devices: The batch is spread over these; None: all there are, of all hosts.

    Rarely needed:
      steps_per_call: Steps that one program does, where nothing is logged or saved between them; 0: 10 on accelerators,
        which would wait for Python, 1 on CPUs, where a convolution in such a program is ten times slower.
      shard: Regular expressions on paths of the training state, as kernel$: what matches is spread over the devices
        instead of being replicated.
      cache_on_device: Copy a data set that is in memory as a whole to the devices once; default: on accelerators.
      profile: Record ten steps in WORKDIR/profile, for TensorBoard and Perfetto.
    """

    devices: Sequence[jax.Device] | None = None
    steps_per_call: int = 0
    shard: tuple[str, ...] = ()
    cache_on_device: bool | None = None
    profile: bool = False


PLAIN = Execution()
"""All devices, one step a call."""


def make_mesh(execution: Execution, rows: Sequence[int], what: str = "data.batch_size") -> Mesh:
    """A mesh of one axis, the devices of a host next to each other, so that it reads consecutive rows of a batch."""
    devices = jax.devices() if execution.devices is None else execution.devices
    if any(count % len(devices) for count in rows):
        raise UserError(f"{what} cannot be spread evenly over {len(devices)} devices (rows: {rows}): give a multiple")
    by_host = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(by_host), (AXIS,), axis_types=(AxisType.Auto,))


def steps_per_call(execution: Execution, mesh: Mesh, rows: Sequence[int]) -> int:
    """How many steps one program does; by default 1 where batches have several shapes."""
    check_at_least("steps_per_call", execution.steps_per_call)
    accelerator = mesh.devices.flat[0].platform != "cpu"
    return execution.steps_per_call or (10 if accelerator and len(rows) == 1 else 1)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device has a whole copy of."""
    return NamedSharding(mesh, PartitionSpec())


def spread(batch: Any, mesh: Mesh) -> Any:
    """Spread a batch that every host has whole over the devices; one that does not divide evenly goes to each whole."""
    even = all(len(leaf) % mesh.size == 0 for leaf in jax.tree.leaves(batch))
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(AXIS) if even else PartitionSpec()))


def state_shardings(state: Any, mesh: Mesh, patterns: Sequence[str]) -> Any:
    """Spread the leaves whose path matches over the devices, along their largest axis that divides evenly.

    All other leaves are replicated.

    Example:
      >>> import jax.numpy as jnp
      >>> mesh = make_mesh(Execution(jax.devices()[:1]), [4])
      >>> found = state_shardings({"kernel": jnp.ones((2, 6)), "bias": jnp.ones(6)}, mesh, ["kernel$"])
      >>> found["kernel"].spec, found["bias"].spec
      (P(None, 'batch'), P())
    """
    if patterns and jax.process_count() > 1 and mesh.devices.flat[0].platform == "cpu":
        # XLA's CPU code exchanges the many parts of one step in any order, each host in another.
        raise UserError("parameters cannot be spread over the CPUs of several hosts: leave out --shard")
    paths, leaves = tree.paths(state), jax.tree.leaves(state)
    for pattern in patterns:
        try:
            matched = any(re.search(pattern, path) for path in paths)
        except re.error as error:
            raise UserError(f"pattern {pattern!r} is not a regular expression: {error}") from None
        if not matched:
            raise UserError(f"pattern {pattern!r} matches nothing of the training state, as {paths[-1]}")

    def sharding(path: str, leaf: Any) -> NamedSharding:
        even = [axis for axis, size in enumerate(leaf.shape) if size and size % mesh.size == 0]
        if not even or not any(re.search(pattern, path) for pattern in patterns):
            return replicated(mesh)
        axis = max(even, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))

    found = [sharding(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), found)


def call_sizes(first: int, end: int, steps_per_call: int, alone: Sequence[int], after: Sequence[int]) -> Iterator[int]:
    """Cut a run into calls of several steps and, around what happens between two steps, of one.

    A step at a multiple of an interval in `alone` is a call of its own, and so is the last one if there is any; at a
    multiple of one in `after` a call must end.

    Example:
      >>> list(call_sizes(0, 12, 4, alone=[0], after=[0, 10]))
      [4, 4, 1, 1, 1, 1]
      >>> list(call_sizes(0, 9, 2, alone=[6], after=[]))
      [2, 2, 1, 1, 2, 1]
    """

    def happens(step: int, intervals: Sequence[int]) -> bool:
        return any(interval > 0 and step % interval == 0 for interval in intervals)

    while first < end:
        inside, last = range(first + 1, first + steps_per_call), first + steps_per_call
        crosses = (
            any(happens(step, [*alone, *after]) for step in inside)
            or happens(last, alone)
            or (last == end and any(alone))
        )
        size = 1 if last > end or crosses else steps_per_call
        yield size
        first += size
