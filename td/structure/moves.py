"""Data movement of one operand: of arrays of ids, and of known arrangements of a leaf."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from td.compact.indices import Broadcastable, on_axis
from td.compact.values import reshaped
from td.structure.op import Op
from td.structure.values import Known, separated, varying


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
    params, rank = op.params, small.ndim
    limits = zip(params["start_indices"], params["limit_indices"], params["strides"] or (1,) * rank, strict=True)
    return small[tuple(slice(*limit) if n > 1 else slice(None) for limit, n in zip(limits, small.shape, strict=True))]


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


def moved(op: Op, known: Known, numbers: Sequence[Any]) -> Known | None:
    """An arrangement of a leaf after data movement; None where it is no longer a sum of vectors."""
    vectors = known.vectors
    if op.name in MOVES:
        parts = [MOVES[op.name](op, on_axis(v, axis, len(vectors))) for axis, v in enumerate(vectors)]
        return _as_sum(known, parts, len(op.shape))
    if op.name in REDUCTIONS:
        gone = [axis % len(vectors) for axis in op.params["axes"]]
        start = known.start + sum(int(vectors[axis][0]) for axis in gone)
        return known._replace(start=start, vectors=tuple(v for axis, v in enumerate(vectors) if axis not in gone))
    if op.name == "dynamic_slice" and all(number is not None for number in numbers[1:]):
        sizes = op.params["slice_sizes"]
        starts = [min(int(n), whole - size) for n, whole, size in zip(numbers[1:], op.shapes[0], sizes, strict=True)]
        slices = [slice(s, s + n) for s, n in zip(starts, sizes, strict=True)]
        return known._replace(vectors=tuple(v[s] if v.size > 1 else v for v, s in zip(vectors, slices, strict=True)))
    if op.name == "gather" and numbers[1] is not None:
        return _gathered(op, known, np.asarray(numbers[1])[..., 0])
    return None


def _as_sum(known: Known, parts: Sequence[Broadcastable], rank: int) -> Known | None:
    """Write the sum of small arrays as one vector an axis."""
    start, vectors = known.start, [np.zeros(1, int)] * rank
    apart: list[Broadcastable] = []  # sums of those that vary along the same axes
    for part in parts:
        meeting = [other for other in apart if set(varying(other)) & set(varying(part))]
        apart = [other for other in apart if not set(varying(other)) & set(varying(part))]
        apart.append(sum(meeting, part))
    for joint in apart:
        split = separated(np.squeeze(joint))
        if split is None:
            return None
        start += 0 if split else int(joint.ravel()[0])
        for axis, vector in zip(varying(joint), split, strict=True):
            vectors[axis] = vector
    return known._replace(start=start, vectors=tuple(vectors))


REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")


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
