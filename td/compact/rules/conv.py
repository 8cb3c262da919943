"""Convolutions with known kernels: which channels drop out, and what constants come to where zeros are put around."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from td.compact.rules.base import AxisIndices, Contraction, Emitted, Needed, Operation, Request, Rule, everything, sizes
from td.compact.values import (
    Broadcastable,
    KeptIndices,
    Value,
    along,
    flags_of,
    host_dtype,
    indices_of,
    on_axis,
    on_line,
    sized,
)

LANES, LEAST = 4, 8
"""Input channels are filled up with zeros to multiples of the one, inputs and outputs at least to the other: XLA:CPU
takes half as long again over 39 as over 40, and longer over 3 than over 8."""


class Convolution(NamedTuple):
    """A known kernel by group: `kernel[groups, inputs, outputs, sides]`, and what enters, `[groups, inputs]`."""

    kernel: Broadcastable
    live: Broadcastable
    constant: Broadcastable
    uneven: bool

    @property
    def present(self) -> Broadcastable:
        return (self.kernel != 0).any(-1)

    def constants(self, left: Broadcastable) -> Broadcastable:
        """`[channels, sides]`: what some constant inputs come to, by the place in the kernel."""
        entering = np.where(left, self.constant, 0)
        shape = (-1, self.kernel.shape[-1])
        if not entering.any():
            return np.zeros((self.kernel.shape[0] * self.kernel.shape[2], shape[1]), self.kernel.dtype)
        return np.einsum("gi,gios->gos", entering, self.kernel, optimize=True).reshape(shape)


def channel_axes(operation: Operation) -> tuple[int, int, int, int]:
    """The channels' axes: of the input, of the output, of the kernel's inputs and outputs."""
    spec = operation.params["dimension_numbers"]
    return spec.lhs_spec[1], spec.out_spec[1], spec.rhs_spec[1], spec.rhs_spec[0]


def group_count(operation: Operation) -> int:
    """Of a grouped convolution, else 1."""
    return int(operation.params["feature_group_count"])


def _uneven(operation: Operation) -> bool:
    """Whether a constant input need not give a constant output: zeros are put around or between the entries."""
    params = operation.params
    return any(low > 0 or high > 0 for low, high in params["padding"]) or any(d > 1 for d in params["lhs_dilation"])


def _read(operation: Operation, values: Sequence[Value]) -> Convolution:
    channels, _, inner, outer = channel_axes(operation)
    groups, shape = group_count(operation), operation.shapes[1]
    order = (inner, outer, *operation.params["dimension_numbers"].rhs_spec[2:])
    dtype = host_dtype(operation.dtype)  # wide enough for the sums of whole numbers of few bits
    kernel = sized(values[1].constant.astype(dtype), range(len(shape)), shape).transpose(order)
    kernel = kernel.reshape(shape[inner], groups, shape[outer] // groups, -1).swapaxes(0, 1)
    live, constant = along(values[0], channels, operation.shapes[0][channels])
    return Convolution(kernel, live.reshape(groups, -1), constant.astype(dtype).reshape(groups, -1), _uneven(operation))


def _applies(operation: Operation, values: Sequence[Value]) -> bool:
    return operation.params["batch_group_count"] == 1 and not values[1].live.any() and 0 not in operation.shapes[1]


def _forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    conv = _read(operation, values)
    live = np.einsum("gi,gio->go", conv.live.astype(np.float32), conv.present.astype(np.float32)).ravel() > 0
    constant = conv.constants(~conv.live)
    if conv.uneven:
        live |= (constant != 0).any(-1)
    rank, axis = len(operation.shape), channel_axes(operation)[1]
    return on_axis(live, axis, rank), on_axis(constant.sum(-1), axis, rank)


def _contract(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, forced: AxisIndices
) -> Contraction:
    conv, axis = _read(operation, values), channel_axes(operation)[1]
    outputs = on_line(computed, axis, operation.shape[axis])
    wanted = outputs.reshape(conv.kernel.shape[0], -1)
    computed = conv.live | (values[0].known & (conv.constant != 0))
    used = computed & np.einsum("go,gio->gi", wanted.astype(np.float32), conv.present.astype(np.float32)).astype(bool)
    if group_count(operation) > 1:  # whole groups, their constants put back
        used = np.broadcast_to(wanted.any(1, keepdims=True), used.shape)
        return Contraction((indices_of(used.ravel()),))
    if 0 in forced:
        used = used.copy()
        used[0, forced[0]] = True
    absorbed = conv.constants(~used & ~conv.live)[outputs]
    if not absorbed.any():
        return Contraction((indices_of(used.ravel()),))
    if not conv.uneven:
        shape = [-1 if a == axis else 1 for a in range(len(operation.shape))]
        return Contraction((indices_of(used.ravel()),), {"bias": absorbed.sum(-1).reshape(shape)})
    spec = operation.params["dimension_numbers"].rhs_spec
    sides = [operation.shapes[1][a] for a in spec[2:]]
    kernel = absorbed.reshape(len(absorbed), 1, *sides).transpose(np.argsort(spec))
    return Contraction((indices_of(used.ravel()),), {"ones": kernel})


def _backward(operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    channels, axis, inner, outer = channel_axes(operation)
    entering = flags_of(used[0], operation.shapes[0][channels])
    outputs = on_line(computed, axis, operation.shape[axis])
    if (groups := group_count(operation)) > 1:
        kernel = on_axis(np.repeat(entering.reshape(groups, -1).any(1), len(outputs) // groups), outer, computed.ndim)
    else:
        kernel = on_axis(entering, inner, computed.ndim) & on_axis(outputs, outer, computed.ndim)
    return [on_axis(entering, channels, computed.ndim), kernel]


def _of_constants(operation: Operation, kernel: Array, sides: Sequence[int]) -> Array:
    """What constant inputs come to at every place: the sum of their kernel's entries that lie on the image."""
    params, spec = operation.params, operation.params["dimension_numbers"]
    summed = kernel.transpose((*spec.rhs_spec[2:], spec.rhs_spec[1], spec.rhs_spec[0]))
    for i, (size, outputs) in enumerate(zip(sides, (operation.shape[a] for a in spec.out_spec[2:]), strict=True)):
        first, taps = np.arange(outputs) * params["window_strides"][i], np.arange(summed.shape[0])
        place = first[:, None] + taps * params["rhs_dilation"][i] - params["padding"][i][0]
        between = params["lhs_dilation"][i]
        inside = (place >= 0) & (place <= (size - 1) * between) & (place % between == 0)
        # Not as a product: on such small arrays the call of one takes longer.
        shaped = inside.T.reshape(len(taps), *[1] * (summed.ndim - 1), outputs)
        summed = jnp.where(shaped, summed[..., None], 0).sum(0)
    return summed.transpose(np.argsort(spec.out_spec))


def _emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    channels, axis, inner, outer = channel_axes(operation)
    rank, params, outputs = len(operation.shape), dict(operation.params), wanted[axis]
    ones, bias = request.constant("ones"), request.constant("bias")
    asked = list(everything(operation.shapes[1]))
    if (groups := group_count(operation)) > 1:
        kept = flags_of(request.used[0], operation.shapes[0][channels]).reshape(groups, -1).any(1)
        params["feature_group_count"] = int(kept.sum())
        outputs = indices_of(np.repeat(kept, operation.shape[axis] // groups))
    else:
        asked[inner] = request.used[0]
    asked[outer] = outputs
    inputs = request.demand(0, tuple(request.used[0] if a == channels else None for a in range(rank)))
    kernel = request.demand(1, tuple(asked))
    have = tuple(outputs if a == axis else None for a in range(rank))
    if not inputs.shape[channels]:
        output = jnp.zeros(sizes(have, operation.shape), operation.dtype)
    elif groups == 1:
        lacking = max(-inputs.shape[channels] % LANES, LEAST - inputs.shape[channels])
        kernel = _widened(_widened(kernel, inner, lacking), outer, LEAST - kernel.shape[outer])
        output = operation.bind(_widened(inputs, channels, lacking), kernel, **params)
        if output.shape[axis] > (present := sizes(have, operation.shape)[axis]):
            output = lax.slice_in_dim(output, 0, present, axis=axis)
    else:
        output = operation.bind(inputs, kernel, **params)
    if ones is not None:
        sides = [inputs.shape[axis] for axis in params["dimension_numbers"].lhs_spec[2:]]
        output = output + _of_constants(operation, ones, sides).astype(output.dtype)
    return output if bias is None else output + bias.astype(output.dtype), have


def _widened(array: Array, axis: int, lacking: int) -> Array:
    """The array with zeros behind it, if it lacks any."""
    return jnp.pad(array, [(0, lacking if a == axis else 0) for a in range(array.ndim)]) if lacking > 0 else array


RULES = {"conv_general_dilated": Rule(_forward, _backward, _emit, _applies, _contract)}
