"""Products, of one known side or none: which contracted indices drop out, batch axes slice by slice."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from td.compact.rules.base import (
    AxisIndices,
    Contraction,
    Emitted,
    Needed,
    Operation,
    Request,
    Rule,
    may_differ_from_zero,
    with_forced,
)
from td.compact.values import (
    Broadcastable,
    KeptIndices,
    Value,
    any_over,
    flags_of,
    host_dtype,
    on_axis,
    projected,
    sized,
)


class Product(NamedTuple):
    """Both sides of a `dot_general` as `[batch..., free, contracted]`, on small arrays."""

    left: Value
    right: Value
    frees: tuple[tuple[int, ...], tuple[int, ...]]
    contracted: tuple[int, ...]
    dtype: Any

    def sum(self, left: Broadcastable, right: Broadcastable) -> Broadcastable:
        """Over the contracted indices, as a small array of the output."""
        left, right = (small if small.dtype == np.float32 else small.astype(self.dtype) for small in (left, right))
        total = np.matmul(left, right.swapaxes(-1, -2))
        batch = total.shape[:-2]
        return total.reshape(*batch, *self.frees[0], *self.frees[1])


def dimensions(operation: Operation) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Batch, free and contracted axes of both sides."""
    contracted, batch = operation.params["dimension_numbers"]
    free = [
        [a for a in range(len(operation.shapes[side])) if a not in (*batch[side], *contracted[side])] for side in (0, 1)
    ]
    return [list(axes) for axes in batch], free, [list(axes) for axes in contracted]


def _product(operation: Operation, values: Sequence[Value]) -> Product:
    batch, free, contracted = dimensions(operation)
    counts = tuple(operation.shapes[0][a] for a in contracted[0])
    found, frees = [], []
    for side in (0, 1):
        order, shape = [*batch[side], *free[side], *contracted[side]], operation.shapes[side]
        both = np.broadcast_shapes(values[side].live.shape, values[side].constant.shape)

        def flat(
            small: Broadcastable, side: int = side, order: Any = order, shape: Any = shape, both: Any = both
        ) -> Broadcastable:
            small = sized(np.broadcast_to(small, both), contracted[side], shape).transpose(order)
            lead = len(batch[side])
            return small.reshape(
                *small.shape[:lead], math.prod(small.shape[lead : lead + len(free[side])]), math.prod(counts)
            )

        found.append(Value(flat(values[side].live), flat(values[side].constant)))
        frees.append(tuple(both[a] for a in free[side]))
    return Product(found[0], found[1], (frees[0], frees[1]), counts, host_dtype(operation.dtype))


def _grows(operation: Operation) -> bool:
    """Whether a contracted axis grows with the inputs: then a sum of constants is none."""
    return any(operation.dynamic_axes[side][a] for side in (0, 1) for a in dimensions(operation)[2][side])


def _live_terms(
    operation: Operation, product: Product, constants: bool = False
) -> list[tuple[Broadcastable, Broadcastable]]:
    """Pairs of flags whose products say which terms are live, or, with constants, which may differ from zero."""
    left, right = may_differ_from_zero(product.left), may_differ_from_zero(product.right)
    if constants or _grows(operation):
        return [(left, right)]
    return [(product.left.live, right), (left, product.right.live)]


def _applies(operation: Operation, values: Sequence[Value]) -> bool:
    del values
    return all(0 not in shape for shape in operation.shapes)


def _forward(operation: Operation, values: Sequence[Value]) -> tuple[Broadcastable, Broadcastable]:
    product = _product(operation, values)
    pairs = _live_terms(operation, product)
    live = sum(product.sum(a.astype(np.float32), b.astype(np.float32)) for a, b in pairs if a.any() and b.any())
    constant = product.sum(product.left.constant, product.right.constant)
    return np.broadcast_to(np.asarray(live) > 0, constant.shape), constant


def _computed_terms(
    operation: Operation, values: Sequence[Value], computed: Broadcastable
) -> tuple[Product, Broadcastable]:
    """`[batch..., free of the left, free of the right]`, the computed entries of the output."""
    batch, free, _ = dimensions(operation)
    product, lead = _product(operation, values), len(batch[0])
    wide = sized(
        computed,
        [lead + i for i, n in enumerate((*product.frees[0], *product.frees[1])) if n > 1],
        operation.shape,
    )
    # Axes along which the operands do not differ and the outputs do: any of them will do.
    for i, n in enumerate((*product.frees[0], *product.frees[1])):
        wide = any_over(wide, [lead + i]) if n == 1 else wide
    split = lead + len(free[0])
    rows, columns = math.prod(wide.shape[lead:split]), math.prod(wide.shape[split:])
    return product, wide.reshape(*wide.shape[:lead], rows, columns)


def _contract(
    operation: Operation, values: Sequence[Value], computed: Broadcastable, forced: AxisIndices
) -> Contraction:
    product, entries = _computed_terms(operation, values, computed)
    known = all(value.known for value in values)  # computed from its factors, which may be far smaller than it
    counts, used = product.contracted, np.zeros(math.prod(product.contracted), bool)
    counted = entries.astype(np.float32)
    for left, right in _live_terms(operation, product, known):
        if left.any() and right.any():
            towards = np.matmul(counted, right.astype(np.float32))  # [batch..., rows, contracted]
            used |= ((towards > 0) & left).reshape(-1, used.size).any(0)
    kept = projected(used.reshape(counts), counts) or tuple(np.zeros(0, int) for _ in counts)
    kept = with_forced(kept, forced, counts)
    inside = np.ones(counts, bool)
    for axis, (line, size) in enumerate(zip(kept, counts, strict=True)):
        inside &= on_axis(flags_of(line, size), axis, len(counts))
    left = np.where(inside.ravel(), 0, product.left.constant)
    if known or not left.any():
        return Contraction(kept)
    absorbed = product.sum(left, product.right.constant)
    chosen = projected(computed, operation.shape) or ()
    for axis, line in enumerate(chosen):
        if line is not None and absorbed.shape[axis] > 1:
            absorbed = np.take(absorbed, line, axis)
    return Contraction(kept, {"bias": absorbed} if absorbed.any() else {})


def _backward(operation: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    batch, free, contracted = dimensions(operation)
    lead, needed = len(batch[0]), []
    chosen: Needed = []
    for side in (0, 1):
        first = lead + (len(free[0]) if side else 0)
        places = [*range(lead), *range(first, first + len(free[side]))]
        kept = any_over(computed, [a for a in range(computed.ndim) if a not in places])
        # Into the operand's order: batch, free, then the contracted indices that are used.
        flags = kept.reshape(*(kept.shape[a] for a in places), *(1 for _ in contracted[side]))
        for place, (line, axis) in enumerate(zip(used, contracted[side], strict=True)):
            size = operation.shapes[side][axis]
            flags = flags & on_axis(flags_of(line, size), len(places) + place, flags.ndim)
        needed = [*batch[side], *free[side], *contracted[side]]
        chosen.append(flags.transpose(np.argsort(needed)))
    return chosen


def _emit(operation: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    batch, free, contracted = dimensions(operation)
    lead, operands = len(batch[0]), []
    for side in (0, 1):
        first = lead + (len(free[0]) if side else 0)
        asked: Needed = [None] * len(operation.shapes[side])
        for place, axis in enumerate(batch[side]):
            asked[axis] = wanted[place]
        for place, axis in enumerate(free[side]):
            asked[axis] = wanted[first + place]
        for line, axis in zip(request.used, contracted[side], strict=True):
            asked[axis] = line
        operands.append(request.demand(side, tuple(asked)))
    output, bias = operation.bind(*operands, **operation.params), request.constant("bias")
    return output if bias is None else output + bias.astype(output.dtype), wanted


RULES = {"dot_general": Rule(_forward, _backward, _emit, _applies, _contract)}
