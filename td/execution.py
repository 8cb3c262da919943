"""How a run is carried out: on which devices, in which pieces. The experiment is the same, and so are its masks."""

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
      devices: the batch is spread over these; None: all there are, of all hosts.
      steps_per_call: so many steps are one program, where nothing is logged or saved between them. For accelerators
        that wait for Python; XLA's CPU code for convolutions is ten times slower inside such a program.
      sharded: regular expressions on paths of the training state, as "kernel$": what matches is spread over the devices
        instead of being held by each.
      resident: whether a data set that lies in memory as a whole is copied to the devices once; None: on accelerators.
      profile: whether a few steps are recorded for TensorBoard and Perfetto.
    """

    devices: Sequence[jax.Device] | None = None
    steps_per_call: int = 1
    sharded: tuple[str, ...] = ()
    resident: bool | None = None
    profile: bool = False


PLAIN = Execution()
"""All devices, one step a call."""


def make_mesh(execution: Execution, rows: Sequence[int], what: str = "data.batch_size") -> Mesh:
    """Put the devices in a row, those of a host beside each other, so that it reads rows that are beside each other.

    Args:
      execution: for the devices.
      rows: the numbers of rows that batches have.
      what: decides on them, for the error line.

    Returns:
      A mesh of one axis.

    Raises:
      UserError: a batch cannot be spread evenly.
    """
    devices = jax.devices() if execution.devices is None else execution.devices
    if any(count % len(devices) for count in rows):
        raise UserError(f"{what} cannot be spread evenly over {len(devices)} devices (rows: {rows}): give a multiple")
    by_host = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(by_host), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole.

    Args:
      mesh: of `make_mesh`.

    Returns:
      The sharding.

    Example:
      >>> replicated(make_mesh(Execution(jax.devices()[:1]), [4])).spec
      P()
    """
    return NamedSharding(mesh, PartitionSpec())


def spread(batch: Any, mesh: Mesh) -> Any:
    """Spread a batch that every host has whole over the devices.

    Args:
      batch: a tree of arrays whose first axis is rows.
      mesh: of `make_mesh`.

    Returns:
      The batch on the devices; where its rows do not divide evenly, all of it on each.

    Example:
      >>> spread(np.ones((4, 3)), make_mesh(Execution(jax.devices()[:1]), [4])).sharding.spec
      P('batch',)
    """
    even = all(len(leaf) % mesh.size == 0 for leaf in jax.tree.leaves(batch))
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(AXIS) if even else PartitionSpec()))


def state_shardings(state: Any, mesh: Mesh, patterns: Sequence[str]) -> Any:
    """Spread the leaves whose path matches over the devices, along their largest axis that divides evenly.

    Args:
      state: any pytree of arrays or shapes.
      mesh: of `make_mesh`.
      patterns: regular expressions on paths.

    Returns:
      A tree of shardings like `state`; leaves that match nothing, or do not divide, are held by every device.

    Raises:
      UserError: a pattern is malformed or matches no leaf; or these are CPUs of several hosts.

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

    Args:
      first: finished steps.
      end: the last step.
      steps_per_call: the larger size, at least 1.
      alone: intervals; a step at a multiple of one is a call of its own, and so is the last one if there is any.
      after: intervals; at a multiple of one a call must end.

    Yields:
      `steps_per_call` or 1, in sum `end - first`.

    Raises:
      UserError: `steps_per_call` is below 1.

    Example:
      >>> list(call_sizes(0, 12, 4, alone=[0], after=[0, 10]))
      [4, 4, 1, 1, 1, 1]
      >>> list(call_sizes(0, 9, 2, alone=[6], after=[]))
      [2, 2, 1, 1, 2, 1]
    """
    check_at_least("steps_per_call", steps_per_call, 1)

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
