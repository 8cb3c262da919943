"""Abstract values of constant propagation: arrays of a value's rank, of size 1 along axes without differences."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from td.program.indices import Broadcastable, any_over


class Value(NamedTuple):
    """Abstract value in constant propagation; both arrays have the same shape.

    Attributes:
      live: True where the entry depends on the inputs.
      constant: its value where `live` is False, else 0.
      known: params alone determine the value.
    """

    live: Broadcastable
    constant: Broadcastable
    known: bool = False

    def map(self, function: Callable[[Broadcastable], Broadcastable]) -> "Value":
        """The value with both arrays moved alike."""
        return Value(function(self.live), function(self.constant))


def on_host(array: Any) -> Broadcastable:
    """Copy to NumPy, half precisions widened."""
    host = np.asarray(array)
    narrow = jax.dtypes.issubdtype(host.dtype, jnp.floating) and host.dtype.itemsize < 4
    return host.astype(np.float32) if narrow else host


def host_dtype(dtype: Any) -> Any:
    """The dtype that constants are computed in on the host."""
    return on_host(np.zeros((), dtype)).dtype


def joined(live: Broadcastable, constant: Broadcastable, known: bool = False) -> Value:
    """Broadcast both arrays to one shape."""
    shape = np.broadcast_shapes(live.shape, constant.shape)
    return Value(np.broadcast_to(live, shape), np.broadcast_to(constant, shape), known)


def number(array: Any) -> Value:
    """A given array."""
    return joined(np.zeros((), bool), on_host(array), known=True)


def unknown(rank: int) -> Value:
    """A value of which every entry is live."""
    return Value(np.ones((1,) * rank, bool), np.zeros((1,) * rank, np.float32))


def settle(value: Value, dynamic_axes: Sequence[bool]) -> Value:
    """The smallest form; constants that differ along a dynamic axis, and NaN, become live."""
    live, constant, _ = value
    if np.issubdtype(constant.dtype, np.inexact):
        live = live | np.isnan(constant)
    live, constant, _ = merged(Value(live, constant), np.flatnonzero(dynamic_axes).tolist())
    constant = np.where(live, np.zeros((), constant.dtype), constant)
    for axis, size in enumerate(live.shape):
        if size > 1 and all((a == np.take(a, [0], axis)).all() for a in (live, constant)):
            live, constant = np.take(live, [0], axis), np.take(constant, [0], axis)
    return Value(live, constant)


def merged(value: Value, axes: Sequence[int]) -> Value:
    """Reduce some axes to size 1: live where any entry is, or where constants differ."""
    live, constant, _ = value
    for axis in axes:
        first = np.take(constant, [0], axis) if constant.shape[axis] else constant
        live, constant = any_over(live | (constant != first), [axis]), first
        constant = np.where(live, np.zeros((), constant.dtype), constant)
    return Value(live, constant)
