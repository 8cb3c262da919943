"""Operations along some axes; along the others, which pass through, every entry stays on its own.

Cumulative sums and the like, sorting, Fourier transforms and products; gathers, scatters, dynamic slices and updates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from td.compact.rules.base import Emitted, Needed, Operation, Request, Rule
from td.compact.values import Value, merged, on_host
from td.program.indices import Broadcastable, KeptIndices, any_over, on_axes, others, sized, width

Passing = Mapping[Any, Sequence[Any]]
"""By axis of the output: the axis of every operand with the same entries; None where an operand lacks it."""


def _placed(passing: Passing, operand: int) -> dict[Any, Any]:
    """By axis of an operand that of the output."""
    return {axis: place for place, axes in passing.items() if (axis := axes[operand]) is not None}


def along(op: Operation, value: Value, passing: Passing, operand: int = 0) -> Value:
    """An operand's value along the output's axes: constant where all entries are the same constant."""
    placed = _placed(passing, operand)
    small = merged(value, others(len(op.shapes[operand]), *placed))
    return small.map(lambda array: on_axes(array, placed, len(op.shape)))


def passing_rule(
    passing: Callable[[Operation], Passing],
    forward: Callable[[Operation, Sequence[Value]], Value],
    applies: Callable[[Operation, Sequence[Value]], bool] = lambda op, values: 0 not in op.shape,
) -> Rule:
    """A rule by the axes that pass through; along the others everything is computed."""

    def backward(op: Operation, values: Sequence[Value], computed: Broadcastable, used: KeptIndices) -> Needed:
        needed: Needed = []
        for operand, shape in enumerate(op.shapes):
            placed = _placed(passing(op), operand)
            kept = any_over(computed, others(computed.ndim, *placed.values()))
            needed.append(on_axes(kept, {place: axis for axis, place in placed.items()}, len(shape)))
        return needed

    def emit(op: Operation, wanted: KeptIndices, request: Request) -> Emitted:
        lines, params, operands = passing(op), dict(op.params), []
        for operand, shape in enumerate(op.shapes):
            asked = {axis: wanted[place] for axis, place in _placed(lines, operand).items()}
            operands.append(request.demand(operand, tuple(asked.get(a) for a in range(len(shape)))))
            if operand == 0 and "slice_sizes" in params:
                taken = enumerate(zip(shape, params["slice_sizes"], strict=True))
                params["slice_sizes"] = tuple(width(asked.get(a), n) if n == size else n for a, (size, n) in taken)
        return op.bind(*operands, **params), tuple(w if place in lines else None for place, w in enumerate(wanted))

    return Rule(forward, backward, emit, applies)


STAYING: dict[str, tuple[int, ...]] = {"cumsum": (0,), "fft": (0,), "cumprod": (0, 1), "reduce_prod": (0, 1)}
"""Constants of a whole axis with the same result at every length."""

ALL_STAY = ("cummax", "cummin", "sort", "top_k", "argmax", "argmin")
"""Operations of which every constant has."""


def _axes(op: Operation) -> list[Any]:
    """The axes along which entries meet."""
    rank = len(op.shapes[0])
    if op.name == "fft":
        return list(range(rank - len(op.params["fft_lengths"]), rank))
    axes = next(op.params[key] for key in ("axes", "axis", "dimension") if key in op.params)
    return [int(axis) % rank for axis in np.atleast_1d(axes)]


def beside(op: Operation) -> Passing:
    """The axes along which entries do not meet."""
    axes = others(len(op.shapes[0]), *_axes(op))
    shorter = len(op.shape) < len(op.shapes[0])
    return {place if shorter else axis: (axis,) * len(op.shapes) for place, axis in enumerate(axes)}


def _met(op: Operation, values: Sequence[Value]) -> Value:
    if len(values) > 1:  # a sort by other keys moves no constant
        return along(op, values[op.params["place"]], beside(op), op.params["place"])
    axes = _axes(op)
    live, constant, _ = values[0].map(lambda small: sized(small, axes, op.shapes[0]))
    if any(op.dynamic_axes[0][axis] for axis in axes) and op.name not in ALL_STAY:
        live = live | ~np.isin(constant, STAYING.get(op.name, ()))
    live = live.any(tuple(axes), keepdims=len(op.shape) == live.ndim)
    if live.all():
        return Value(live, np.zeros(live.shape, np.float32))
    return Value(live, on_host(op.bind(jnp.asarray(constant, op.dtypes[0]), **op.params)))


KEEPING = {"scatter-add": 0, "scatter-sub": 0, "scatter-mul": 1}
"""Updates that change nothing."""


def _taken_whole(op: Operation) -> Passing:
    """The operands of a gather are an array and indices; a scatter has updates too."""
    shape, several = op.shapes[0], len(op.shapes)
    if op.name.startswith("dynamic"):
        taken = op.params["slice_sizes"] if op.name == "dynamic_slice" else op.shapes[1]
        update = 2 if op.name == "dynamic_update_slice" else 1
        return {a: (a,) * update + (None,) * (several - update) for a, n in enumerate(shape) if taken[a] == n}
    numbers, reads = op.params["dimension_numbers"], op.name == "gather"
    if reads:
        names = ["start_indices_batching_dims", "collapsed_slice_dims", "start_index_map", "offset_dims"]
    else:
        names = ["scatter_indices_batching_dims", "inserted_window_dims", "scatter_dims_to_operand_dims"]
        names += ["update_window_dims"]
    alongside, dropped, started, window = (getattr(numbers, name) for name in names)
    batching, moving = numbers.operand_batching_dims, op.shape if reads else op.shapes[2]
    # Of the gathered slices or the updates, axes by those of the array, of windows and of a batch.
    pairs = dict(zip(others(len(shape), *dropped, *batching), window, strict=True))
    whole = [(a, None, w) for a, w in pairs.items() if moving[w] == shape[a] and a not in started]
    rest = others(len(moving), *window)
    whole += [(a, i, rest[i]) for a, i in zip(batching, alongside, strict=True)]
    return {w: (a, i) for a, i, w in whole} if reads else {a: (a, i, w) for a, i, w in whole}


def _read(op: Operation, values: Sequence[Value]) -> Value:
    live, constant, _ = along(op, values[0], _taken_whole(op))
    filled, whole = op.params.get("fill_value"), jnp.issubdtype(op.dtype, jnp.integer)
    farthest = (jnp.iinfo(op.dtype).min or jnp.iinfo(op.dtype).max) if whole else None
    # Indices out of range, which NaN or the farthest whole number marks as errors.
    if filled is not None and filled == filled and filled != farthest:
        live = live | (constant != filled)
    return Value(live, constant)


def _written(op: Operation, values: Sequence[Value]) -> Value:
    """Constant where the array and what is written to it agree, or where that changes nothing."""
    place = 1 if op.name == "dynamic_update_slice" else 2
    (live, constant, _), updates = (along(op, values[operand], _taken_whole(op), operand) for operand in (0, place))
    written = updates.live | (updates.constant != KEEPING.get(op.name, constant))
    return Value(live | (written & (constant != 0) if op.name == "scatter-mul" else live | written), constant)


MEETING = ("cumsum", "cumprod", "cumlogsumexp", "reduce_prod", "fft", *ALL_STAY)
SCATTERS = ("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max")
RULES = {
    **dict.fromkeys(MEETING, passing_rule(beside, _met)),
    **dict.fromkeys(("gather", "dynamic_slice"), passing_rule(_taken_whole, _read)),
    **dict.fromkeys((*SCATTERS, "dynamic_update_slice"), passing_rule(_taken_whole, _written)),
}
