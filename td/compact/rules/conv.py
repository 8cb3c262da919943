"""Convolutions with known kernels, which may differ between the iterations of a loop."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from td.compact.rules.base import AxisIndices, Contraction, Emitted, Needed, Operation, Request, Rule
from td.compact.rules.terms import add_bias, may_differ_from_zero, padded
from td.compact.values import Value, host_dtype, merged
from td.program.indices import Broadcastable, KeptIndices, flags_of, indices_of, on_axis, on_line, others, sized, sizes

LANES, LEAST = 4, 8
"""Input channels are padded to multiples of `LANES`, inputs and outputs to at least `LEAST`: XLA:CPU takes half as long
again for 39 channels as for 40, and longer for 3 than for 8."""


class Convolution(NamedTuple):
    """A known kernel by group, `[groups, inputs, outputs, sides]`, and its inputs, `[groups, inputs]`."""

    kernel: Broadcastable
    live: Broadcastable
    constant: Broadcastable

    @property
    def present(self) -> Broadcastable:
        return (self.kernel != 0).any(-1)

    def constants(self, chosen: Broadcastable) -> Broadcastable:
        """`[channels, sides]`: the contribution of some constant inputs, by the place in the kernel."""
        entering = np.where(chosen, self.constant, 0)
        return np.einsum("gi,gios->gos", entering, self.kernel, optimize=True).reshape(-1, self.kernel.shape[-1])


def channel_axes(op: Operation) -> tuple[int, int, int, int]:
    """The channel axes of the input and of the output, the kernel's axes of inputs and of outputs."""
    spec = op.params["dimension_numbers"]
    return spec.lhs_spec[1], spec.out_spec[1], spec.rhs_spec[1], spec.rhs_spec[0]


def _read(op: Operation, values: Sequence[Value]) -> Convolution:
    channels, _, inner, outer = channel_axes(op)
    groups, shape = op.params["feature_group_count"], op.shapes[1]
    order = (inner, outer, *op.params["dimension_numbers"].rhs_spec[2:])
    dtype = host_dtype(op.dtype)  # wide enough for the sums of whole numbers of few bits
    differs = values[1].live.any()
    kernel = may_differ_from_zero(values[1]) if differs else values[1].constant
    kernel = sized(kernel.astype(dtype), range(len(shape)), shape).transpose(order)
    kernel = kernel.reshape(shape[inner], groups, shape[outer] // groups, -1).swapaxes(0, 1)
    inputs = merged(values[0], others(len(shape), channels))
    if differs:  # constants too make something else in every iteration
        inputs = Value(may_differ_from_zero(inputs), np.zeros_like(inputs.constant))
    live, constant = (np.broadcast_to(a.ravel(), op.shapes[0][channels]).reshape(groups, -1) for a in inputs[:2])
    return Convolution(kernel, live, constant.astype(dtype))


def _forward(op: Operation, values: Sequence[Value]) -> Value:
    conv = _read(op, values)
    live = (conv.live[:, :, None] & conv.present).any(1).ravel()
    constant = conv.constants(~conv.live)
    if padded(op):
        live |= (constant != 0).any(-1)
    return Value(live, constant.sum(-1)).map(lambda line: on_axis(line, channel_axes(op)[1], len(op.shape)))


def _contract(op: Operation, values: Sequence[Value], computed: Broadcastable, forced: AxisIndices) -> Contraction:
    conv, axis = _read(op, values), channel_axes(op)[1]
    outputs = on_line(computed, axis, op.shape[axis])
    wanted = outputs.reshape(len(conv.kernel), 1, -1)
    if len(conv.kernel) > 1:  # whole groups, their constants put back
        return Contraction((indices_of(np.broadcast_to(wanted.any(-1), conv.live.shape).ravel()),))
    used = (conv.live | (values[0].known & (conv.constant != 0))) & (wanted & conv.present).any(-1)
    used = used | flags_of(forced.get(0, ()), used.size)
    kept, absorbed = (indices_of(used.ravel()),), conv.constants(~used & ~conv.live)[outputs]
    if not absorbed.any():
        return Contraction(kept)
    if not padded(op):
        return Contraction(kept, {"bias": on_axis(absorbed.sum(-1), axis, len(op.shape))})
    spec = op.params["dimension_numbers"].rhs_spec
    sides = [op.shapes[1][a] for a in spec[2:]]
    return Contraction(kept, {"ones": absorbed.reshape(len(absorbed), 1, *sides).transpose(np.argsort(spec))})


def _backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    (channels, axis, inner, outer), rank = channel_axes(op), computed.ndim
    entering, outputs = flags_of(used[0], op.shapes[0][channels]), on_line(computed, axis, op.shape[axis])
    if (groups := op.params["feature_group_count"]) > 1:
        kernel = on_axis(np.repeat(entering.reshape(groups, -1).any(1), len(outputs) // groups), outer, rank)
    else:
        kernel = on_axis(entering, inner, rank) & on_axis(outputs, outer, rank)
    return [on_axis(entering, channels, rank), kernel]


def _of_constants(op: Operation, kernel: Array, sides: Sequence[int]) -> Array:
    """The contribution of constant inputs at every place: the sum of their taps that lie on the image."""
    params, spec = op.params, op.params["dimension_numbers"]
    if any(map(is_symbolic_dim, sides)):
        image = [1 if a in spec.lhs_spec[:2] else op.shapes[0][a] for a in range(kernel.ndim)]
        return op.bind(jnp.ones(image, kernel.dtype), kernel, **params)
    summed = kernel.transpose((*spec.rhs_spec[2:], spec.rhs_spec[1], spec.rhs_spec[0]))
    for i, (size, outputs) in enumerate(zip(sides, (op.shape[a] for a in spec.out_spec[2:]), strict=True)):
        first, taps = np.arange(outputs) * params["window_strides"][i], np.arange(summed.shape[0])
        place = first[:, None] + taps * params["rhs_dilation"][i] - params["padding"][i][0]
        between = params["lhs_dilation"][i]
        inside = (place >= 0) & (place <= (size - 1) * between) & (place % between == 0)
        # Not as a product: on such small arrays the call of one takes longer.
        shaped = inside.T.reshape(len(taps), *[1] * (summed.ndim - 1), outputs)
        summed = jnp.where(shaped, summed[..., None], 0).sum(0)
    return summed.transpose(np.argsort(spec.out_spec))


def _emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    channels, axis, inner, outer = channel_axes(op)
    axes, params, outputs, ones = range(len(op.shape)), dict(op.params), wanted[axis], request.constant("ones")
    asked = {inner: request.used[0]}
    if (groups := op.params["feature_group_count"]) > 1:
        kept = flags_of(request.used[0], op.shapes[0][channels]).reshape(groups, -1).any(1)
        params["feature_group_count"] = int(kept.sum())
        asked, outputs = {}, indices_of(np.repeat(kept, op.shape[axis] // groups))
    inputs = request.demand(0, tuple(request.used[0] if a == channels else None for a in axes))
    kernel = request.demand(1, tuple(outputs if a == outer else asked.get(a) for a in axes))
    have = tuple(outputs if a == axis else None for a in axes)
    if not inputs.shape[channels]:
        output = jnp.zeros(sizes(have, op.shape), op.dtype)
    elif groups > 1:
        output = op.bind(inputs, kernel, **params)
    else:
        lacking, present = max(-inputs.shape[channels] % LANES, LEAST - inputs.shape[channels]), kernel.shape[outer]
        kernel = _widened(_widened(kernel, inner, lacking), outer, LEAST - present)
        output = op.bind(_widened(inputs, channels, lacking), kernel, **params)
        output = lax.slice_in_dim(output, 0, present, axis=axis) if output.shape[axis] > present else output
    if ones is not None:
        sides = [inputs.shape[a] for a in params["dimension_numbers"].lhs_spec[2:]]
        output = output + _of_constants(op, ones, sides).astype(output.dtype)
    return add_bias(output, request), have


def _widened(array: Array, axis: int, lacking: int) -> Array:
    """Pad an axis at its end with zeros, if any lack."""
    return jnp.pad(array, [(0, lacking if a == axis else 0) for a in range(array.ndim)]) if lacking > 0 else array


RULES = {
    "conv_general_dilated": Rule(
        _forward,
        _backward,
        _emit,
        lambda op, values: (
            op.params["batch_group_count"] == 1
            and (values[1].known or not values[1].live.any())
            and 0 not in op.shapes[1]
        ),
        _contract,
    )
}
