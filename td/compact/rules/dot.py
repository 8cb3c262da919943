"""Products of known or live operands; batch axes slice by slice."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from td.compact.rules.base import AxisIndices, Contraction, Emitted, Needed, Operation, Request, Rule
from td.compact.rules.terms import absorbing, add_bias, may_differ_from_zero, with_forced
from td.compact.values import Value, host_dtype
from td.program.indices import Broadcastable, KeptIndices, any_over, others, projected, rectangle, sized


class Product(NamedTuple):
    """Both sides of a `dot_general` as `[batch..., free, contracted]`, on small arrays."""

    left: Value
    right: Value
    frees: tuple[int, ...]
    counts: tuple[int, ...]
    dtype: Any

    def sum(self, left: Broadcastable, right: Broadcastable) -> Broadcastable:
        """Sum over the contracted indices, as a small array of the output."""
        left, right = (small if small.dtype == np.float32 else small.astype(self.dtype) for small in (left, right))
        total = np.matmul(left, right.swapaxes(-1, -2))
        return total.reshape((*total.shape[:-2], *self.frees))


def dimensions(op: Operation) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Batch, free and contracted axes of both sides."""
    contracted, batch = op.params["dimension_numbers"]
    free = [others(len(op.shapes[side]), *batch[side], *contracted[side]) for side in (0, 1)]
    return [list(axes) for axes in batch], free, [list(axes) for axes in contracted]


def _places(op: Operation, side: int) -> list[int]:
    """The output's axes of a side's batch and free axes."""
    batch, free, _ = dimensions(op)
    first = len(batch[0]) + (len(free[0]) if side else 0)
    return [*range(len(batch[0])), *range(first, first + len(free[side]))]


def _product(op: Operation, values: Sequence[Value]) -> Product:
    (batch, free, contracted), sides = dimensions(op), []
    frees: tuple[int, ...] = ()
    counts = tuple(op.shapes[0][a] for a in contracted[0])
    for side, value in enumerate(values):
        size, order = value.live.shape, (*batch[side], *free[side], *contracted[side])
        flat = (*(size[a] for a in batch[side]), math.prod(size[a] for a in free[side]), math.prod(counts))
        full = [sized(small, contracted[side], op.shapes[side]) for small in value[:2]]
        sides.append(Value(*(small.transpose(order).reshape(flat) for small in full)))
        frees += tuple(size[a] for a in free[side])
    return Product(sides[0], sides[1], frees, counts, host_dtype(op.dtype))


def _live_terms(op: Operation, product: Product, constants: bool = False) -> list[tuple[Broadcastable, Broadcastable]]:
    """Pairs of flags whose products mark live terms, or, with `constants`, those that may differ from zero.

    A sum of constants over a dynamic axis is live.
    """
    left, right = may_differ_from_zero(product.left), may_differ_from_zero(product.right)
    if constants or any(op.dynamic_axes[side][a] for side in (0, 1) for a in dimensions(op)[2][side]):
        return [(left, right)]
    return [(product.left.live, right), (left, product.right.live)]


def _forward(op: Operation, values: Sequence[Value]) -> Value:
    product = _product(op, values)
    pairs = [(a.astype(np.float32), b.astype(np.float32)) for a, b in _live_terms(op, product) if a.any() and b.any()]
    constant = product.sum(product.left.constant, product.right.constant)
    return Value(np.asarray(sum(product.sum(*pair) for pair in pairs)) > 0, constant)


def _computed_entries(op: Operation, product: Product, computed: Broadcastable) -> Broadcastable:
    """`[batch..., free of the left, free of the right]`, flags of the output's computed entries."""
    batch, free, _ = dimensions(op)
    lead, split = len(batch[0]), len(batch[0]) + len(free[0])
    wide = sized(computed, [lead + i for i, n in enumerate(product.frees) if n > 1], op.shape)
    # Axes along which the operands do not differ and the outputs do: any entry will do.
    wide = any_over(wide, [lead + i for i, n in enumerate(product.frees) if n == 1])
    return wide.reshape(*wide.shape[:lead], math.prod(wide.shape[lead:split]), math.prod(wide.shape[split:]))


def _contract(op: Operation, values: Sequence[Value], computed: Broadcastable, forced: AxisIndices) -> Contraction:
    product = _product(op, values)
    known = all(value.known for value in values)  # computed from its factors, which may be far smaller than it
    counts, used = product.counts, np.zeros(math.prod(product.counts), bool)
    counted = _computed_entries(op, product, computed).astype(np.float32)
    for left, right in _live_terms(op, product, known):
        if left.any() and right.any():
            towards = np.matmul(counted, right.astype(np.float32))  # [batch..., rows, contracted]
            used |= ((towards > 0) & left).reshape(-1, used.size).any(0)
    kept = projected(used.reshape(counts), counts) or tuple(np.zeros(0, int) for _ in counts)
    kept = with_forced(kept, forced, counts)
    left = np.where(np.broadcast_to(rectangle(kept, counts), counts).ravel(), 0, product.left.constant)
    if known or not left.any():
        return Contraction(kept)
    return absorbing(kept, product.sum(left, product.right.constant), projected(computed, op.shape))


def _backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
    needed: Needed = []
    for side, (batch, free, contracted) in enumerate(zip(*dimensions(op), strict=True)):
        kept = any_over(computed, others(computed.ndim, *_places(op, side)))
        kept = kept.reshape(*(kept.shape[a] for a in _places(op, side)), *(1 for _ in contracted))
        flags = kept & rectangle(used, [op.shapes[side][a] for a in contracted])
        needed.append(flags.transpose(np.argsort([*batch, *free, *contracted])))
    return needed


def _emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operands = []
    for side, (batch, free, contracted) in enumerate(zip(*dimensions(op), strict=True)):
        lines = [*(wanted[a] for a in _places(op, side)), *request.used]
        asked = dict(zip((*batch, *free, *contracted), lines, strict=True))
        operands.append(request.demand(side, tuple(asked[a] for a in range(len(asked)))))
    return add_bias(op.bind(*operands, **op.params), request), wanted


RULES = {"dot_general": Rule(_forward, _backward, _emit, lambda op, values: 0 not in sum(op.shapes, ()), _contract)}
