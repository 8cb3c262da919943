"""What one equation does to known values: arrangements of leaves, and whole numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from td.compact.indices import Shape
from td.compact.rules.elementwise import NAMES
from td.compact.values import blocks
from td.structure.moves import moved
from td.structure.op import Op, resized
from td.structure.values import Known

LARGEST_NUMBER = 2**20
"""Entries up to which whole numbers are computed."""

ZERO_AT_ZERO = {
    *"""
    convert_element_type neg abs sign square integer_pow sqrt cbrt tanh sin tan asin atan sinh asinh atanh erf erf_inv
    expm1 log1p reduce_precision copy copy_p real imag stop_gradient floor ceil round
    """.split()  # noqa: SIM905
}
"""Operations of one operand that give zero for zero."""

CHOOSE = ("max", "min", "select_n", "clamp")
"""Operations that give one of their operands, here a number beside an arrangement of a leaf."""


def known_output(op: Op, values: Sequence[Known], shapes: Sequence[Shape]) -> list[Known]:
    """The outputs of an equation of known operands, given the shapes of all leaves."""
    outputs, numbers = op.outputs, [value.number for value in values]
    whole = all(np.issubdtype(out.aval.dtype, np.integer) or out.aval.dtype == bool for out in outputs)
    if whole and all(out.aval.size <= LARGEST_NUMBER for out in outputs) and all(n is not None for n in numbers):
        primitive = op.equations[-1].primitive
        found = primitive.bind(*numbers, **primitive.get_bind_params(op.params))
        return [Known(number=np.asarray(each)) for each in (found if primitive.multiple_results else [found])]
    found = _arranged(op, values, numbers, shapes) or Known()
    leaves = frozenset[int]().union(*(value.leaves for value in values))
    return [found._replace(mixed=leaves - {found.leaf})] * len(outputs)


def _arranged(op: Op, values: Sequence[Known], numbers: Sequence[Any], shapes: Sequence[Shape]) -> Known | None:
    if op.name == "concatenate":
        axis = op.params["dimension"]
        return Known(pieces=tuple(values), sizes=tuple(shape[axis] for shape in op.shapes), axis=axis)
    if values and values[0].pieces:
        return _by_pieces(op, values, shapes)
    if op.name in NAMES:
        return _combined(op, values, shapes)
    if not values or values[0].leaf is None:
        return None
    found = moved(op, values[0], numbers)
    added = [moved(op, other, numbers) for other in values[0].added]
    if found is None:
        return None
    return found._replace(added=tuple(filter(None, added)), zero=found.zero and None not in added)


def _combined(op: Op, values: Sequence[Known], shapes: Sequence[Shape]) -> Known | None:
    """An elementwise operation: the arrangement of the largest operand, and whether it still gives zero for zero."""
    arranged = [value for value in values if value.leaf is not None and len(value.vectors) == len(op.shape)]
    if not arranged:
        return None
    best = max(arranged, key=lambda value: (len(value.across), value.zero))
    others = [value for value in values[op.name == "select_n" :] if value is not best]
    own = max(math.prod(shapes[leaf]) for leaf in best.leaves)
    if any(math.prod(shapes[leaf]) > own for value in others if value.leaf is None for leaf in value.leaves):
        return None  # a product of larger leaves, with its bias
    if op.name in ("mul", "and"):
        return best
    if op.name == "div" or not others:
        return best._replace(zero=best.zero and (values[0] is best if others else op.name in ZERO_AT_ZERO))
    terms = [value for value in others if value.leaf is not None and len(value.vectors) == len(op.shape)]
    plain = [value for value in others if not value.leaves and op.name in CHOOSE]
    zero = all(value.zero for value in (best, *terms)) and len(terms) + len(plain) == len(others)
    return best._replace(zero=zero, added=(*best.added, *terms, *(each for value in terms for each in value.added)))


def _by_pieces(op: Op, values: Sequence[Known], shapes: Sequence[Shape]) -> Known | None:
    """A concatenation, piece by piece."""
    whole, rest = values[0], values[1:]
    axis = _axis_after(op, whole.axis)
    if axis is None or any(value.leaves for value in rest):
        return None
    pieces = []
    for piece, size in zip(whole.pieces, whole.sizes, strict=True):
        sizes = (resized(op.shapes[0], whole.axis, size), *op.shapes[1:])
        part = op._replace(shapes=sizes, shape=resized(op.shape, axis, size))
        pieces.append(_arranged(part, [piece, *rest], [None] * len(values), shapes) or Known(mixed=piece.leaves))
    return Known(pieces=tuple(pieces), sizes=whole.sizes, axis=axis)


def _axis_after(op: Op, axis: int) -> int | None:
    """The axis along which the pieces of the output lie; None where an operation cuts them."""
    if op.name == "transpose":
        return list(op.params["permutation"]).index(axis)
    if op.name == "broadcast_in_dim":
        return op.params["broadcast_dimensions"][axis]
    if op.name == "reshape":
        after = [new for old, new in blocks(op.shapes[0], op.shape) if old == [axis]]
        return after[0][0] if after and len(after[0]) == 1 else None
    return axis if op.name in NAMES else None
