"""What one equation does to entries of leaves and to labels: data movement, elementwise operations, reductions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from td.compact.indices import Broadcastable
from td.compact.rules.elementwise import NAMES
from td.compact.values import reshaped
from td.structure.classes import ANY, NONE, VECTOR
from td.structure.products import convolution, lookup, product
from td.structure.state import Op, Tracing, Value, joined_live, merged
from td.structure.values import Known, Live, Vectors, reshape_known, separated, varying

MULTIPLIES = ("mul", "div", "and")
"""Operations that give zero for a unit of zeros whatever the other operand is."""

LARGEST_NUMBER = 2**20
"""Entries up to which whole numbers are computed."""


# Data movement of one operand: of vectors, one an axis, and of small arrays.


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
    strides = op.params["strides"] or (1,) * small.ndim
    limits = zip(op.params["start_indices"], op.params["limit_indices"], strides, strict=True)
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


def known_output(op: Op, values: Sequence[Value]) -> list[Value]:
    """The outputs of an equation of known operands."""
    outputs = op.equation.outvars
    numbers = [value.number if isinstance(value, Known) else None for value in values]
    whole = all(np.issubdtype(out.aval.dtype, np.integer) or out.aval.dtype == bool for out in outputs)
    small = whole and all(out.aval.size <= LARGEST_NUMBER for out in outputs)
    if small and all(number is not None for number in numbers):
        found = op.equation.primitive.bind(*numbers, **op.equation.primitive.get_bind_params(op.params))
        found = found if op.equation.primitive.multiple_results else [found]
        return [Known(number=np.asarray(each)) for each in found]
    leaves = [value for value in values if isinstance(value, Known) and value.leaf is not None]
    moved = None
    if leaves and op.name in NAMES:
        sized = [v for v in leaves if all(n == 1 or m == n for n, m in zip(_sizes(v), op.shape, strict=True)) or True]
        moved = max(sized, key=lambda value: sum(vector.size > 1 for vector in value.vectors))
        moved = moved if len(moved.vectors) == len(op.shape) else None
    elif leaves and isinstance(values[0], Known) and values[0].leaf is not None:
        moved = _moved(op, values[0], numbers)
    return [moved or Known()] * len(outputs)


def _sizes(value: Known) -> list[int]:
    return [vector.size for vector in value.vectors]


def _moved(op: Op, known: Known, numbers: Sequence[Any]) -> Known | None:
    """An arrangement of a leaf after data movement; None where it is no longer a sum of vectors."""
    vectors, start = known.vectors, known.start
    if op.name == "reshape":
        return reshape_known(known, op.shapes[0], op.shape)
    if op.name == "squeeze":
        gone = {axis % len(vectors) for axis in op.params["dimensions"]}
        start += sum(int(vectors[axis][0]) for axis in gone)
        return known._replace(start=start, vectors=tuple(v for axis, v in enumerate(vectors) if axis not in gone))
    if op.name == "transpose":
        return known._replace(vectors=tuple(vectors[axis] for axis in op.params["permutation"]))
    if op.name == "broadcast_in_dim":
        places = dict(zip(op.params["broadcast_dimensions"], vectors, strict=True))
        return known._replace(vectors=tuple(places.get(axis, np.zeros(1, int)) for axis in range(len(op.shape))))
    if op.name == "rev":
        return known._replace(
            vectors=tuple(v[::-1] if a in op.params["dimensions"] else v for a, v in enumerate(vectors))
        )
    if op.name == "slice":
        strides = op.params["strides"] or (1,) * len(vectors)
        limits = zip(op.params["start_indices"], op.params["limit_indices"], strides, strict=True)
        return known._replace(vectors=_taken(vectors, [slice(*limit) for limit in limits]))
    if op.name == "dynamic_slice" and all(number is not None for number in numbers[1:]):
        sizes = op.params["slice_sizes"]
        starts = [min(int(n), whole - size) for n, whole, size in zip(numbers[1:], op.shapes[0], sizes, strict=True)]
        return known._replace(vectors=_taken(vectors, [slice(s, s + n) for s, n in zip(starts, sizes, strict=True)]))
    if op.name == "gather" and numbers[1] is not None and (axis := one_axis(op)) is not None:
        index = np.asarray(numbers[1])[..., 0]
        picked = separated(np.broadcast_to(vectors[axis], (op.shapes[0][axis],))[index]) if index.size else None
        if picked is None:
            return None
        start += int(vectors[axis][np.minimum(index, vectors[axis].size - 1)]) if not index.ndim else 0
        rest, lines = iter([v for a, v in enumerate(vectors) if a != axis]), iter(picked)
        inner = op.params["dimension_numbers"].offset_dims
        return known._replace(
            start=start, vectors=tuple(next(rest if a in inner else lines) for a in range(len(op.shape)))
        )
    return None


def _taken(vectors: Vectors, limits: Sequence[slice]) -> Vectors:
    return tuple(v[limit] if v.size > 1 else v for v, limit in zip(vectors, limits, strict=True))


def one_axis(op: Op) -> int | None:
    """The axis of which a gather takes single entries, if it is one axis and all others stay whole."""
    numbers, sizes = op.params["dimension_numbers"], op.params["slice_sizes"]
    whole = [axis for axis, (n, size) in enumerate(zip(op.shapes[0], sizes, strict=True)) if n == size]
    axes = numbers.start_index_map
    single = len(axes) == 1 and tuple(numbers.collapsed_slice_dims) == tuple(axes) and not numbers.operand_batching_dims
    rest = [axis for axis in range(len(sizes)) if axis not in axes]
    return axes[0] if single and set(rest) <= set(whole) else None


# Live operands.


def live_output(trace: Tracing, op: Op, values: list[Value]) -> Any:
    """The outputs of an equation of a live operand; None where it has no rule."""
    if op.name in MOVES:
        value = values[0]
        return value.with_labels([trace.classes.settled(MOVES[op.name](op, ids)) for ids in value.labels])
    if op.name in NAMES or op.name == "clamp":
        return _elementwise(trace, op, values)
    rule = RULES.get(op.name)
    return None if rule is None else rule(trace, op, values)


def _elementwise(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Unite the units of live operands, entry by entry, and note the scales and offsets among the known ones."""
    cases = values[1:] if op.name == "select_n" and isinstance(values[0], Live) else values
    live = [value for value in values if isinstance(value, Live) and (value.labels or value in cases)]
    adds = op.name not in MULTIPLIES and sum(isinstance(value, Live) for value in cases) > 1
    labels: list[Broadcastable] = []
    for value in live:
        labels = merged(trace, labels, value.labels, adds)
    revived = any(value.revived for value in live) or (
        adds and any(not _has_units(trace, v) for v in cases if isinstance(v, Live))
    )
    for known, shape in zip(values, op.shapes, strict=True):
        if isinstance(known, Known) and known.leaf is not None and len(shape) == len(op.shape):
            labels = _with_vector(trace, op, known, labels, revived)
    if revived and op.name in MULTIPLIES:
        vectors = [ids[trace.classes.of_vectors(ids)] for value in live for ids in value.labels]
        trace.reviving |= {int(leaf) for ids in vectors for leaf in np.unique(trace.classes.unit[ids])}
    return joined_live(values).with_labels(labels)._replace(revived=revived)


def _with_vector(
    trace: Tracing, op: Op, known: Known, labels: list[Broadcastable], revived: bool
) -> list[Broadcastable]:
    """Note which units a scale or an offset belongs to; where none is known yet, its entries are ids of their own."""
    table, leaf = "scale" if op.name in MULTIPLIES else "offset", known.leaf
    across = [axis for axis, vector in enumerate(known.vectors) if vector.size > 1]
    met = [ids for ids in labels if set(varying(ids)) & set(across)]
    for ids in met:
        axes = varying(ids)
        if set(axes) <= set(across):
            units = np.where(trace.classes.of_units(ids) | trace.classes.of_vectors(ids), ids, NONE)
            trace.write(table, known, axes, op.shape, units.reshape([ids.shape[axis] for axis in axes]))
            if revived and table == "scale" and leaf is not None:
                trace.reviving.add(leaf)
    if met or not across or leaf is None:
        return labels
    ids = trace.classes.new([op.shape[axis] if axis in across else 1 for axis in range(len(op.shape))], VECTOR, leaf)
    trace.write(table, known, across, op.shape, ids.reshape([op.shape[axis] for axis in across]))
    return [*labels, ids]


def _has_units(trace: Tracing, value: Live) -> bool:
    return any(trace.classes.of_units(ids).any() for ids in value.labels)


def _concatenate(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    """Labels side by side; known operands match anything."""
    axis = op.params["dimension"]
    slots: list[list[Broadcastable]] = []
    for place, (value, shape) in enumerate(zip(values, op.shapes, strict=True)):
        filler = np.full((1,) * len(shape), ANY if isinstance(value, Known) else NONE)
        own = [] if isinstance(value, Known) else list(value.labels)
        for slot in slots:
            kinds = {a for ids in slot for a in varying(ids)} - {axis}
            match = next((i for i, ids in enumerate(own) if (set(varying(ids)) - {axis}) & kinds), None)
            if match is None and not kinds:
                match = next((i for i, ids in enumerate(own) if set(varying(ids)) == {axis}), None)
            slot.append(filler if match is None else own.pop(match))
        for ids in own:
            before = [np.full((1,) * len(shape), ANY if isinstance(v, Known) else NONE) for v in values[:place]]
            slots.append([*before, ids])
    labels = []
    for slot in slots:
        common = np.broadcast_shapes(*([1 if a == axis else n for a, n in enumerate(ids.shape)] for ids in slot))
        sizes = [[shape[axis] if a == axis else n for a, n in enumerate(common)] for shape in op.shapes]
        labels.append(
            trace.classes.settled(
                np.concatenate([np.broadcast_to(i, s) for i, s in zip(slot, sizes, strict=True)], axis)
            )
        )
    return joined_live(values).with_labels(labels)


def _pad(trace: Tracing, op: Op, values: Sequence[Value]) -> Live | None:
    if not isinstance(values[0], Live):
        return None
    labels = []
    for ids in values[0].labels:
        for axis, (low, high, inner) in enumerate(op.params["padding_config"]):
            if ids.shape[axis] > 1 and (low, high, inner) != (0, 0, 0):
                size = ids.shape[axis]
                full = np.full([*ids.shape[:axis], max(size + (size - 1) * inner, 0), *ids.shape[axis + 1 :]], ANY)
                full[(slice(None),) * axis + (slice(None, None, inner + 1),)] = ids
                full = full[(slice(None),) * axis + (slice(max(-low, 0), full.shape[axis] - max(-high, 0)),)]
                widths = [(max(low, 0), max(high, 0)) if a == axis else (0, 0) for a in range(ids.ndim)]
                ids = np.pad(full, widths, constant_values=ANY)
        labels.append(ids)
    return joined_live(values).with_labels(labels)


def _reduce(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    axes = tuple(op.params["axes"])
    found = [
        ids
        for ids in (
            trace.classes.summed(ids, axes) for value in values if isinstance(value, Live) for ids in value.labels
        )
        if ids is not None
    ]
    return joined_live(values).with_labels([np.squeeze(ids, axes) for ids in found])


def _choose_index(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    for ids in values[0].labels:
        if any(ids.shape[axis] > 1 for axis in op.params["axes"]):
            trace.freeze(ids, op.where)
    return _reduce(trace, op, values)


def _along(trace: Tracing, op: Op, values: Sequence[Value], axes: Sequence[int], keep: bool = True) -> list[Live]:
    """Operations that mix entries along some axes and leave the others apart."""
    outputs = []
    for place in range(len(op.equation.outvars)):
        value = values[min(place, len(values) - 1)]
        labels = []
        for ids in value.labels if isinstance(value, Live) else ():
            if any(ids.shape[axis] > 1 for axis in axes):
                trace.freeze(ids, op.where)
            else:
                labels.append(ids)
        outputs.append(joined_live(values).with_labels(labels))
    return outputs


def _window(trace: Tracing, op: Op, values: Sequence[Value]) -> list[Live]:
    return _along(
        trace,
        op,
        values,
        [
            a
            for a, (n, m) in enumerate(zip(op.shapes[0], op.shape, strict=True))
            if n != m or op.params["window_dimensions"][a] > 1
        ],
    )


def _dynamic_slice(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    if not isinstance(values[0], Live):
        return lookup(trace, op, values)
    return _along(trace, op, values, [a for a, (n, m) in enumerate(zip(op.shapes[0], op.shape, strict=True)) if n != m])


def _dynamic_update_slice(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    part = [a for a, (n, m) in enumerate(zip(op.shapes[0], op.shapes[1], strict=True)) if n != m]
    labels: list[Broadcastable] = []
    for value in values[:2]:
        if isinstance(value, Live):
            labels = merged(trace, labels, _along(trace, op, [value], part)[0].labels, True)
    return joined_live(values).with_labels(labels)


def _gather(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    operand, index = values[0], values[1]
    if isinstance(operand, Known):
        return lookup(trace, op, values)
    inner = op.params["dimension_numbers"].offset_dims
    axis = one_axis(op)
    labels = []
    for ids in operand.labels:
        if axis is None:
            trace.freeze(ids, op.where)
        elif ids.shape[axis] == 1:
            shape = [1] * len(op.shape)
            for size, place in zip([n for a, n in enumerate(ids.shape) if a != axis], inner, strict=True):
                shape[place] = size
            labels.append(ids.reshape(shape))
        elif isinstance(index, Known) and index.number is not None:
            picked = np.take(ids, index.number[..., 0], axis)
            picked = np.moveaxis(
                picked, range(axis, axis + index.number.ndim - 1), [a for a in range(len(op.shape)) if a not in inner]
            )
            labels.append(trace.classes.settled(picked))
        else:
            trace.freeze(ids, op.where)
    return joined_live(values).with_labels(labels)


def _scatter(trace: Tracing, op: Op, values: Sequence[Value]) -> Any:
    """Updates of whole slices: their units are those of the operand's same axes."""
    numbers, updates = op.params["dimension_numbers"], values[2]
    window = [
        a
        for a in range(len(op.shape))
        if a not in numbers.inserted_window_dims and a not in numbers.operand_batching_dims
    ]
    labels: list[Broadcastable] = []
    for value in (values[0], updates):
        for ids in value.labels if isinstance(value, Live) else ():
            if value is updates:
                shape, whole = [1] * len(op.shape), True
                for axis, place in zip(numbers.update_window_dims, window, strict=True):
                    shape[place] = ids.shape[axis]
                    whole &= ids.shape[axis] in (1, op.shape[place])
                if not whole or any(a not in numbers.update_window_dims for a in varying(ids)):
                    trace.freeze(ids, op.where)
                    continue
                ids = ids.reshape(shape)
            labels = merged(trace, labels, [ids], True)
    return joined_live(values).with_labels(labels)


def _product(trace: Tracing, op: Op, values: Sequence[Value]) -> Live:
    return product(trace, op, values)


RULES: dict[str, Callable[[Tracing, Op, list[Value]], Any]] = {
    "argmax": _choose_index,
    "argmin": _choose_index,
    "concatenate": _concatenate,
    "conv_general_dilated": convolution,
    "dot_general": product,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "top_k": lambda trace, op, values: _along(trace, op, values, [len(op.shapes[0]) - 1]),
    "sort": lambda trace, op, values: _along(trace, op, values, [op.params["dimension"]]),
    **{f"reduce_{kind}": _reduce for kind in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **{
        f"cum{kind}": lambda t, op, v: _along(t, op, v, [op.params["axis"]])
        for kind in ("sum", "prod", "max", "min", "logsumexp")
    },
    **{f"reduce_window{kind}": _window for kind in ("_sum", "_max", "_min", "")},
    **{f"scatter{kind}": _scatter for kind in ("", "-add", "_add", "-mul", "_mul", "-min", "_min", "-max", "_max")},
}
"""The rules of live operands, by primitive."""
