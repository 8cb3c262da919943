"""Data movement of one operand: of arrays of ids, and of known arrangements of a leaf."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from td.compact.indices import Broadcastable
from td.compact.values import reshaped
from td.structure.op import Op
from td.structure.values import Known, Vectors, reshape_known, separated


def _transpose(op: Op, small: Broadcastable) -> Broadcastable:
    return np.transpose(small, op.params["permutation"])


def _broadcast_in_dim(op: Op, small: Broadcastable) -> Broadcastable:
    shape = [1] * len(op.shape)
    for size, axis in zip(small.shape, op.params["broadcast_dimensions"], strict=True):
        shape[axis] = size
    return small.reshape(shape)


def _squeeze(op: Op, small: Broadcastable) -> Broadcastable:
    return np.squeeze(small, tuple(op.params["dimensions"]))


def _slice(op: Op, small: Broadcastable) -> Broadcastable:
    return small[tuple(s if n > 1 else slice(None) for s, n in zip(_slices(op), small.shape, strict=True))]


def _rev(op: Op, small: Broadcastable) -> Broadcastable:
    return np.flip(small, op.params["dimensions"])


def _reshape(op: Op, small: Broadcastable) -> Broadcastable:
    return reshaped(small, op.shapes[0], op.shape)


MOVES: dict[str, Callable[[Op, Broadcastable], Broadcastable]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
"""Operations on every small array."""


def _slices(op: Op) -> list[slice]:
    params = op.params
    strides = params["strides"] or (1,) * len(params["start_indices"])
    return [slice(*limit) for limit in zip(params["start_indices"], params["limit_indices"], strides, strict=True)]


def moved(op: Op, known: Known, numbers: Sequence[Any]) -> Known | None:
    """An arrangement of a leaf after data movement; None where it is no longer a sum of vectors."""
    vectors = known.vectors
    if op.name == "reshape":
        return reshape_known(known, op.shapes[0], op.shape)
    if op.name == "transpose":
        return known._replace(vectors=tuple(vectors[axis] for axis in op.params["permutation"]))
    if op.name == "broadcast_in_dim":
        places = dict(zip(op.params["broadcast_dimensions"], vectors, strict=True))
        return known._replace(vectors=tuple(places.get(axis, np.zeros(1, int)) for axis in range(len(op.shape))))
    if op.name == "squeeze":
        return without(known, op.params["dimensions"])
    if op.name in REDUCTIONS:
        return without(known, op.params["axes"])
    if op.name == "rev":
        flipped = op.params["dimensions"]
        return known._replace(vectors=tuple(v[::-1] if axis in flipped else v for axis, v in enumerate(vectors)))
    if op.name == "slice":
        return known._replace(vectors=_taken(vectors, _slices(op)))
    if op.name == "dynamic_slice" and all(number is not None for number in numbers[1:]):
        sizes = op.params["slice_sizes"]
        starts = [min(int(n), whole - size) for n, whole, size in zip(numbers[1:], op.shapes[0], sizes, strict=True)]
        return known._replace(vectors=_taken(vectors, [slice(s, s + n) for s, n in zip(starts, sizes, strict=True)]))
    if op.name == "gather" and numbers[1] is not None:
        return _gathered(op, known, np.asarray(numbers[1])[..., 0])
    return None


REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")


def without(known: Known, axes: Sequence[int]) -> Known:
    """Some axes left out; what is left stands for all of their entries."""
    gone = {axis % len(known.vectors) for axis in axes}
    start = known.start + sum(int(known.vectors[axis][0]) for axis in gone)
    return known._replace(start=start, vectors=tuple(v for a, v in enumerate(known.vectors) if a not in gone))


def _taken(vectors: Vectors, slices: Sequence[slice]) -> Vectors:
    return tuple(v[one] if v.size > 1 else v for v, one in zip(vectors, slices, strict=True))


def _gathered(op: Op, known: Known, index: Broadcastable) -> Known | None:
    """Single entries of one axis at known places."""
    axis = gathered_axis(op)
    if axis is None:
        return None
    index = np.clip(index, 0, op.shapes[0][axis] - 1)
    picked = separated(np.broadcast_to(known.vectors[axis], (op.shapes[0][axis],))[index])
    if picked is None:
        return None
    start = known.start + (0 if index.ndim else int(known.vectors[axis][min(int(index), known.vectors[axis].size - 1)]))
    rest, lines = iter([v for a, v in enumerate(known.vectors) if a != axis]), iter(picked)
    inner = op.params["dimension_numbers"].offset_dims
    vectors = tuple(next(rest if a in inner else lines) for a in range(len(op.shape)))
    return known._replace(start=start, vectors=vectors)


def gathered_axis(op: Op) -> int | None:
    """The axis of which a gather takes single entries, if it is one axis and all others stay whole."""
    numbers, sizes = op.params["dimension_numbers"], op.params["slice_sizes"]
    axes = tuple(numbers.start_index_map)
    if len(axes) != 1 or tuple(numbers.collapsed_slice_dims) != axes or numbers.operand_batching_dims:
        return None
    whole = all(n == size for axis, (n, size) in enumerate(zip(op.shapes[0], sizes, strict=True)) if axis not in axes)
    return axes[0] if whole else None


def passing_axes(op: Op) -> dict[int, int]:
    """`{axis of the operand: axis of the output}` of those that a gather or a dynamic slice takes whole."""
    sizes = op.params["slice_sizes"]
    whole = [axis for axis, (n, size) in enumerate(zip(op.shapes[0], sizes, strict=True)) if n == size]
    if op.name == "dynamic_slice":
        return {axis: axis for axis in whole}
    numbers = op.params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    inner = zip([axis for axis in range(len(sizes)) if axis not in gone], numbers.offset_dims, strict=True)
    return {axis: place for axis, place in inner if axis in whole}
