"""Products of known or live operands; batch axes slice by slice."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from td.compact.rules.base import AxisIndices, Contraction, Emitted, Needed, Operation, Request, Rule
from td.compact.rules.terms import absorbing, add_bias, may_differ_from_zero, with_forced
from td.compact.values import Value, host_dtype
from td.program.indices import Broadcastable, KeptIndices, any_over, others, projected, rectangle, sized
from td.program.links import Side, sides_of


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


def _sides(op: Operation) -> tuple[Side, Side]:
    return sides_of(op.params["dimension_numbers"], op.shapes)


def _product(op: Operation, values: Sequence[Value]) -> Product:
    sides, operands = _sides(op), []
    frees: tuple[int, ...] = ()
    counts = tuple(op.shapes[0][a] for a in sides[0].contracted)
    for side, value, shape in zip(sides, values, op.shapes, strict=True):
        size, order = value.live.shape, (*side.placed, *side.contracted)
        flat = (*(size[a] for a in side.batch), math.prod(size[a] for a in side.free), math.prod(counts))
        full = [sized(small, side.contracted, shape) for small in value[:2]]
        operands.append(Value(*(small.transpose(order).reshape(flat) for small in full)))
        frees += tuple(size[a] for a in side.free)
    return Product(operands[0], operands[1], frees, counts, host_dtype(op.dtype))


def _live_terms(op: Operation, product: Product, constants: bool = False) -> list[tuple[Broadcastable, Broadcastable]]:
    """Pairs of flags whose products mark live terms, or, with `constants`, those that may differ from zero."""
    left, right = may_differ_from_zero(product.left), may_differ_from_zero(product.right)
    # A sum of constants over a dynamic axis is live.
    if constants or any(op.dynamic_axes[i][a] for i, side in enumerate(_sides(op)) for a in side.contracted):
        return [(left, right)]
    return [(product.left.live, right), (left, product.right.live)]


def _forward(op: Operation, values: Sequence[Value]) -> Value:
    product = _product(op, values)
    pairs = [(a.astype(np.float32), b.astype(np.float32)) for a, b in _live_terms(op, product) if a.any() and b.any()]
    constant = product.sum(product.left.constant, product.right.constant)
    return Value(np.asarray(sum(product.sum(*pair) for pair in pairs)) > 0, constant)


def _computed_entries(op: Operation, product: Product, computed: Broadcastable) -> Broadcastable:
    """`[batch..., free of the left, free of the right]`, flags of the output's computed entries."""
    left, _ = _sides(op)
    lead, split = len(left.batch), len(left.placed)
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
    for side, shape in zip(_sides(op), op.shapes, strict=True):
        places = side.placed.values()
        kept = any_over(computed, others(computed.ndim, *places))
        kept = kept.reshape(*(kept.shape[a] for a in places), *(1 for _ in side.contracted))
        flags = kept & rectangle(used, [shape[a] for a in side.contracted])
        needed.append(flags.transpose(np.argsort([*side.placed, *side.contracted])))
    return needed


def _emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
    operands = []
    for operand, side in enumerate(_sides(op)):
        asked = {axis: wanted[place] for axis, place in side.placed.items()}
        asked |= dict(zip(side.contracted, request.used, strict=True))
        operands.append(request.demand(operand, tuple(asked[a] for a in range(len(asked)))))
    return add_bias(op.bind(*operands, **op.params), request), wanted


RULES = {"dot_general": Rule(_forward, _backward, _emit, lambda op, values: 0 not in sum(op.shapes, ()), _contract)}
