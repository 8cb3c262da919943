"""Data movement of ids and of known arrangements of a leaf, and other equations of known values."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from td.program.equations import ELEMENTWISE
from td.program.indices import Shape, blocks, on_axis, others, placed_at, reshaped
from td.program.links import sides_of, taken_whole
from td.structure.classes import cut
from td.structure.values import Ids, Known, Labels, Op, Value, meet, resized, varying


def _sliced(slices: Iterable[slice], small: Ids) -> Ids:
    return small[tuple(one if n > 1 else slice(None) for one, n in zip(slices, small.shape, strict=True))]


def _slice(op: Op, small: Ids) -> Ids:
    params, strides = op.params, op.params["strides"] or (1,) * small.ndim
    return _sliced(map(slice, params["start_indices"], params["limit_indices"], strides), small)


MOVES: dict[str, Callable[[Op, Ids], Ids]] = {
    "broadcast_in_dim": lambda op, small: placed_at(small, op.params["broadcast_dimensions"], len(op.shape)),
    "reshape": lambda op, small: reshaped(small, op.shapes[0], op.shape),
    "rev": lambda op, small: np.flip(small, op.params["dimensions"]),
    "slice": _slice,
    "squeeze": lambda op, small: np.squeeze(small, tuple(op.params["dimensions"])),
    "transpose": lambda op, small: np.transpose(small, op.params["permutation"]),
}
"""Operations on every small array."""

REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")


def moved(op: Op, known: Known, numbers: Sequence[Any]) -> Known | None:
    """An arrangement of a leaf after data movement; None where it is no longer a sum of vectors."""
    if op.name in MOVES:
        move: Callable[[Ids], Ids] = partial(MOVES[op.name], op)
    elif op.name in REDUCTIONS:  # what is left stands for all entries
        gone = op.params["axes"]
        move = lambda small: small[tuple(0 if axis in gone else slice(None) for axis in range(small.ndim))]  # noqa: E731
    elif op.name == "gather" and gathered_axis(op) is not None and numbers[1] is not None:
        move = partial(gathered, op, numbers[1])
    elif op.name == "dynamic_slice" and all(number is not None for number in numbers[1:]):
        sizes = op.params["slice_sizes"]
        starts = [min(int(n), whole - size) for n, whole, size in zip(numbers[1:], op.shapes[0], sizes, strict=True)]
        move = partial(_sliced, [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)])
    else:
        return None
    small = [on_axis(vector, axis, len(known.vectors)) for axis, vector in enumerate(known.vectors)]
    return _as_sum(known, [move(one) for one in small], len(op.shape))


def _as_sum(known: Known, parts: Labels, rank: int) -> Known | None:
    """Write the sum of small arrays as one vector an axis; None where it is no such sum, or has no entries."""
    start, vectors = known.start, [np.zeros(1, int)] * rank
    apart: list[Ids] = []  # sums of those that vary along the same axes
    for part in parts:
        meeting = [other for other in apart if meet(other, part)]
        apart = [*(other for other in apart if not meet(other, part)), sum(meeting, part)]
    for joint in apart:
        if joint.size == 0:
            return None
        rest = joint - joint.ravel()[0]
        start += int(joint.ravel()[0])
        lines = {axis: np.moveaxis(rest, axis, -1).reshape(-1, joint.shape[axis])[0] for axis in varying(rest)}
        if (sum(on_axis(line, axis, rank) for axis, line in lines.items()) != rest).any():
            return None
        for axis, line in lines.items():
            vectors[axis] = line if line.any() else line[:1]
    return known._replace(start=start, vectors=tuple(vectors))


def gathered(op: Op, index: Any, small: Ids) -> Ids:
    """Single entries of one axis at known places."""
    (axis,), index = op.params["dimension_numbers"].start_index_map, np.asarray(index)[..., 0]
    index = index if small.shape[axis] > 1 else np.zeros_like(index, shape=(1,) * index.ndim)
    rest = others(len(op.shape), *op.params["dimension_numbers"].offset_dims)
    return np.moveaxis(np.take(small, index, axis, mode="clip"), range(axis, axis + len(rest)), rest)


def gathered_axis(op: Op) -> int | None:
    """The axis of which a gather takes single entries, if it is one axis and all others stay whole."""
    numbers = op.params["dimension_numbers"]
    axes = tuple(numbers.start_index_map)
    if len(axes) != 1 or tuple(numbers.collapsed_slice_dims) != axes or numbers.operand_batching_dims:
        return None
    return axes[0] if len(taken_whole(op.params, op.shapes[0])) == len(op.shapes[0]) - 1 else None


def passing_axes(op: Op) -> dict[int, int]:
    """`{axis of the operand: axis of the output}` of those that a gather or a dynamic slice takes whole."""
    if op.name == "gather":
        return taken_whole(op.params, op.shapes[0])
    return {axis: axis for axis, size in enumerate(op.params["slice_sizes"]) if size == op.shapes[0][axis]}


LARGEST_NUMBER = 2**20
"""Entries up to which whole numbers are computed."""

ZERO_AT_ZERO = {
    *"""
    convert_element_type neg abs sign square integer_pow sqrt cbrt tanh sin tan asin atan sinh asinh atanh erf erf_inv
    expm1 log1p reduce_precision copy copy_p real imag stop_gradient floor ceil round
    """.split()  # noqa: SIM905
}
"""Operations of one operand that give zero for zero."""


def known_output(op: Op, values: Sequence[Known], shapes: Sequence[Shape]) -> list[Known]:
    """The outputs of an equation of known operands, given the shapes of all leaves."""
    outputs, numbers = op.equations[-1].outvars, [value.number for value in values]
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
        axis = int(op.params["dimension"])
        return Known(pieces=tuple(values), sizes=tuple(shape[axis] for shape in op.shapes), axis=axis)
    if values and values[0].pieces:
        return _by_pieces(op, values, shapes)
    if op.name in ELEMENTWISE:
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
    plain = [value for value in others if not value.leaves and op.name in ("max", "min", "select_n", "clamp")]
    zero = all(value.zero for value in (best, *terms)) and len(terms) + len(plain) == len(others)
    return best._replace(zero=zero, added=(*best.added, *terms, *(each for value in terms for each in value.added)))


def _by_pieces(op: Op, values: Sequence[Known], shapes: Sequence[Shape]) -> Known | None:
    """Data movement or an elementwise operation on a concatenation, piece by piece."""
    axes = axes_of_pieces(op, 0, values[0].axis) if op.name in ELEMENTWISE or op.name in MOVES else None
    if axes is None or any(value.leaves for value in values[1:]):
        return None
    pieces = []
    for one, parts in in_pieces(op, values, 0, axes):
        known = [part for part in parts if isinstance(part, Known)]
        pieces.append(_arranged(one, known, [None] * len(known), shapes) or Known(mixed=known[0].leaves))
    return Known(pieces=tuple(pieces), sizes=values[0].sizes, axis=axes[1] or 0)


PieceAxes = tuple[dict[int, int], int | None]
"""Along which axes the operands lie in pieces, and the output: None where the pieces' outputs are added."""


def axes_of_pieces(op: Op, place: int, axis: int) -> PieceAxes | None:
    """The axes of an operation on a concatenation along one axis; None where it cuts the pieces."""
    if op.name in ELEMENTWISE:
        return {i: axis for i, shape in enumerate(op.shapes) if len(shape) == len(op.shape)}, axis
    if op.name == "transpose":
        return {0: axis}, list(op.params["permutation"]).index(axis)
    if op.name == "broadcast_in_dim":
        return {0: axis}, op.params["broadcast_dimensions"][axis]
    if op.name == "reshape":
        after = [new for old, new in blocks(op.shapes[0], op.shape) if old == [axis] and len(new) == 1]
        return ({0: axis}, after[0][0]) if after else None
    if op.name == "dot_general":
        sides = sides_of(op.params["dimension_numbers"], op.shapes)
        own, other = sides[place], sides[1 - place]
        if axis in own.free:
            return {place: axis}, own.placed[axis]
        return {place: axis, 1 - place: dict(zip(own.rows, other.rows, strict=True))[axis]}, own.placed.get(axis)
    if op.name == "conv_general_dilated" and place == 1 and op.params["feature_group_count"] == 1:
        numbers = op.params["dimension_numbers"]
        if axis == numbers.rhs_spec[0]:
            return {1: axis}, numbers.out_spec[1]
        return ({1: axis, 0: numbers.lhs_spec[1]}, None) if axis == numbers.rhs_spec[1] else None
    return None


def in_pieces(op: Op, values: Sequence[Value], place: int, axes: PieceAxes) -> Iterator[tuple[Op, list[Value]]]:
    """An operation on a concatenation, once for every piece of it."""
    (along, after), whole, start = axes, values[place], 0
    assert isinstance(whole, Known)
    for piece, size in zip(whole.pieces, whole.sizes, strict=True):
        parts = [cut(value, along[i], start, start + size) if i in along else value for i, value in enumerate(values)]
        parts[place] = piece
        sizes = [resized(shape, along[i], size) if i in along else shape for i, shape in enumerate(op.shapes)]
        shape = op.shape if after is None else resized(op.shape, after, size)
        yield op._replace(shapes=tuple(sizes), shape=shape), parts
        start += size
