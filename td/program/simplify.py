"""Rewriting while tracing, so that programs are equal at every input size: known indices, means and variances."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.errors import InconclusiveDimensionOperation
from jax.export import is_symbolic_dim

from td.program.equations import is_key
from td.program.indices import others
from td.program.stacks import Flat, selected_layer

ON_HOST: dict[str, Callable[..., Any]] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply},
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "gt": np.greater},
    "convert_element_type": lambda x: x,
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
}
"""Operations on known numbers, symbolic sizes included; none whose result may have a batch's size."""

WRITES: dict[str, Callable[..., Any]] = {
    "scatter": lambda old, new: new,
    **{"scatter-add": lax.add, "scatter-sub": lax.sub, "scatter-mul": lax.mul},
    **{"scatter-min": lax.min, "scatter-max": lax.max},
}
"""Scatters, by what they write."""


def simplified(flat: Flat, equation: Any, bind: Callable[..., Any], inputs: list[int]) -> list[int] | None:
    """The values that replace an equation's outputs; None where it stays."""
    name, params, avals = equation.primitive.name, equation.params, [v.aval for v in equation.outvars]
    numbers = [_small_number(flat, value) for value in inputs]
    if name in ("sort", "top_k"):  # an equation for each output; the compiler joins them again
        chosen = partial(_chosen, bind)
        return [flat.add(name, chosen, {**params, "place": i}, inputs, [aval])[0] for i, aval in enumerate(avals)]
    if name == "dim_as_value":
        return [flat.number(np.array(params["dim"], object), avals[0])]
    if name in ("add", "mul") and jnp.issubdtype(avals[0].dtype, jnp.integer):  # as `arange` has for symbolic sizes
        for number, other in zip(numbers, inputs[::-1], strict=True):
            if number is not None and not number.ndim and number == (name == "mul"):
                return [other]
    if name == "select_n" and (which := numbers[0]) is not None and len({*which.flat}) == 1:
        return [inputs[1 + int(which.flat[0])]]
    if name == "squeeze":
        return selected_layer(flat, inputs[0], *params["dimensions"]) if len(params["dimensions"]) == 1 else None
    if name == "gather":
        return _selected(flat, params, inputs, avals)
    if name in WRITES:
        return _put(flat, equation, inputs)
    if name == "div":
        return _mean(flat, equation, bind, inputs)
    known = [number for number in numbers if number is not None]
    if name == "dynamic_slice" and len(known) == len(inputs) - 1:
        starts = enumerate(zip(known, params["slice_sizes"], strict=True))
        ends = {axis: (start[()], start[()] + n, 1, n) for axis, (start, n) in starts}
        return [_sliced(flat, inputs[0], ends)] if _within(ends, flat.avals[inputs[0]].shape) else None
    computed = name in ON_HOST and _is_small(avals[0]) and len(known) == len(inputs)
    return _computed(flat, equation, known) if computed else None


def _chosen(bind: Callable[..., Any], *operands: Any, place: int, **params: Any) -> Any:
    return bind(*operands, **params)[place]


def _is_small(aval: Any) -> bool:
    """Test for indices and scalars, which are so at every size of the inputs."""
    whole = jnp.issubdtype(aval.dtype, jnp.integer) or aval.dtype == bool
    return len(aval.shape) <= whole and not any(map(is_symbolic_dim, aval.shape))


def _small_number(flat: Flat, value: int) -> np.ndarray | None:
    """A small number of the function, to compute with."""
    number, aval = flat.numbers.get(value), flat.avals[value]
    unknown = number is None or isinstance(number, jax.core.Tracer) or is_key(aval.dtype) or not _is_small(aval)
    return None if unknown else np.asarray(number)


def is_symbolic(number: Any) -> bool:
    """Test for a number of symbolic sizes."""
    return isinstance(number, np.ndarray) and number.dtype.kind == "O"


def on_device(number: Any, aval: Any) -> Any:
    """A number as an array, its symbolic sizes as those of the call."""
    if not is_symbolic(number):
        return jnp.asarray(number)
    return jnp.stack([jnp.asarray(entry) for entry in number.flat]).reshape(number.shape).astype(aval.dtype)


def _computed(flat: Flat, equation: Any, numbers: Sequence[np.ndarray]) -> list[int] | None:
    aval = equation.outvars[0].aval
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(ON_HOST[equation.primitive.name](*numbers))
    except InconclusiveDimensionOperation:
        return None
    return [flat.number(found if any(map(is_symbolic_dim, found.flat)) else found.astype(aval.dtype), aval)]


def _progression(flat: Flat, value: int) -> tuple[Any, Any, Any] | None:
    """Start, step and count of indices; the count of one index is None."""
    number, made = _small_number(flat, value), flat.made.get(value)
    if number is not None and len({*number.flat}) == 1:
        return number.flat[0], 1, None
    if made is None or made.name not in ("iota", "broadcast_in_dim", "rev", "add", "mul"):
        return None
    if made.name == "iota":
        return 0, 1, flat.avals[value].shape[0]
    first, last = (_progression(flat, value) for value in (made.inputs[0], made.inputs[-1]))
    if first is None or last is None:
        return None
    start, step, count = last
    if made.name == "add":
        return start + first[0], step, count
    if made.name == "mul":
        return start * first[0], step * first[0], count
    return (start + (count - 1) * step, -step, count) if made.name == "rev" else last


def _selected(flat: Flat, params: Any, inputs: Sequence[int], avals: Any) -> list[int] | None:
    """A gather at known indices as what known sizes have: a slice, or at several indices of one axis `take`."""
    numbers, taken, shape = params["dimension_numbers"], params["slice_sizes"], flat.avals[inputs[0]].shape
    axes, dropped, offset = numbers.start_index_map, numbers.collapsed_slice_dims, numbers.offset_dims
    promised = params["mode"] == lax.GatherScatterMode.PROMISE_IN_BOUNDS
    if any(taken[a] != shape[a] for a in others(len(shape), *axes)) or numbers.operand_batching_dims:
        return None
    made = flat.made.get(inputs[1])
    if made is None:
        return None
    if promised and params["unique_indices"]:  # as of `x[:, 0, ::2]`
        lines = [_progression(flat, part) for part in (made.inputs if made.name == "concatenate" else inputs[1:])]
        whole = {axis: line for axis, line in zip(axes, lines, strict=False) if line is not None}
        stepped = [axis for axis, line in whole.items() if line[2] is not None]
        dropped = tuple(axis for axis in dropped if axis not in stepped)
        places = [place for place, axis in enumerate(others(len(shape), *dropped)) if axis not in stepped]
        if len(whole) < len(axes) or len(stepped) != len(flat.avals[inputs[1]].shape) - 1 or offset != tuple(places):
            return None
        ends = {}
        for axis, (start, step, count) in whole.items():
            span = taken[axis] if count is None else (count - 1) * step + 1
            ends[axis] = start, start + span, step, count or taken[axis]
        part = _sliced(flat, inputs[0], ends)
        return flat.traced(lambda array: lax.squeeze(array, dropped), [part]) if dropped else [part]
    line = _small_number(flat, made.inputs[0]) if made.name == "broadcast_in_dim" else None
    if line is None or line.ndim != 1 or not line.size or len(flat.avals[inputs[1]].shape) != 2 or axes != dropped:
        return None
    (axis,) = axes
    inside = all(_within({axis: (entry, entry + 1)}, shape, promised) for entry in line)
    if not inside or offset != tuple(others(len(shape), axis)):
        return None
    steps = {*np.diff(line)} or {1}
    if len(steps) > 1 or is_symbolic_dim(step := steps.pop()) or step < 1:
        return flat.add("take", _take, {"axis": axis, "indices": line}, inputs[:1], avals)
    return [_sliced(flat, inputs[0], {axis: (line[0], line[-1] + 1, int(step), len(line))})]


def _put(flat: Flat, equation: Any, inputs: Sequence[int]) -> list[int] | None:
    """A scatter at one known index of one axis, as of `x.at[:, 2].add(y)`."""
    numbers, shape = equation.params["dimension_numbers"], flat.avals[inputs[0]].shape
    axes, line = numbers.inserted_window_dims, _progression(flat, inputs[1])
    single = flat.avals[inputs[1]].shape == (1,)
    if line is None or line[2] is not None or not single or numbers.operand_batching_dims or len(axes) != 1:
        return None
    index, axis, rest = line[0], axes[0], others(len(shape), axes[0])
    whole = flat.avals[inputs[2]].shape == tuple(shape[a] for a in rest)
    if numbers.scatter_dims_to_operand_dims != axes or is_symbolic_dim(index) or not whole:
        return None
    if numbers.update_window_dims != (*range(len(rest)),) or not _within({axis: (index, index + 1)}, shape):
        return None
    old = _sliced(flat, inputs[0], {axis: (index, index + 1, 1, 1)})
    combine = WRITES[equation.primitive.name]
    update = flat.traced(lambda old, new: combine(lax.squeeze(old, (axis,)), new), [old, inputs[2]])
    return flat.add("put", put, {"axis": axis, "index": int(index)}, [inputs[0], *update], [equation.outvars[0].aval])


def put(array: Any, update: Any, axis: int, index: int) -> Any:
    """Write one entry of an axis."""
    return array.at[(slice(None),) * axis + (index,)].set(update)


def _within(ends: Mapping[Any, tuple[Any, ...]], shape: Sequence[Any], unsure: bool = False) -> bool:
    """Test for starts and ends that lie on their axes; what a symbolic size leaves open is unsure."""
    try:
        return all(line[0] >= 0 and line[1] <= shape[axis] for axis, line in ends.items())
    except InconclusiveDimensionOperation:
        return unsure


def _sliced(flat: Flat, array: int, ends: Mapping[Any, tuple[Any, ...]]) -> int:
    """Add a slice by start, end, step and count of axes, by hand, as tracing would compare symbolic sizes."""
    whole = flat.avals[array]
    lines = [ends.get(axis, (0, size, 1, size)) for axis, size in enumerate(whole.shape)]
    if all(line[:3] == (0, size, 1) for line, size in zip(lines, whole.shape, strict=True)):
        return array  # as in tracing
    *settings, sizes = zip(*lines, strict=True)
    params = dict(zip(("start_indices", "limit_indices", "strides"), settings, strict=True))
    return flat.add("slice", lax.slice, params, [array], [whole.update(shape=sizes)])[0]


def _take(array: Any, axis: Any, indices: np.ndarray) -> Any:
    return jnp.take(array, on_device(indices, jax.typeof(jnp.int32(0))), axis=axis, mode="clip")


def _mean(flat: Flat, equation: Any, bind: Callable[..., Any], inputs: list[int]) -> list[int] | None:
    """A sum, possibly broadcast, divided by its count, which depends on an image's size: a mean or a variance."""
    spread = flat.made.get(inputs[0])
    total = flat.made.get(spread.inputs[0]) if spread is not None and spread.name == "broadcast_in_dim" else spread
    divisor, divided = _small_number(flat, inputs[1]), equation.outvars[0].aval
    if total is None or total.name != "reduce_sum" or divisor is None or divisor.ndim:
        return None
    terms, axes = flat.avals[total.inputs[0]], total.params["axes"]
    # A division of whole numbers does not distribute over a sum.
    if not jnp.issubdtype(terms.dtype, jnp.inexact) or divisor[()] != math.prod(terms.shape[axis] for axis in axes):
        return None
    source = _deviating(flat, total.inputs[0], axes)
    if source is None:
        join, operand, name = _average, total.inputs[0], "mean"
    else:
        join, operand, name = _variance, source, "variance"
    joined = partial(join, total.bind, partial(bind, **equation.params))
    output = flat.add(name, joined, total.params, (operand, inputs[1]), [flat.avals[total.outputs[0]]])
    if spread is None or spread is total:
        return output
    return flat.add(spread.name, spread.bind, spread.params, output, [divided])


def _average(total: Callable[..., Any], divide: Callable[..., Any], operand: Any, divisor: Any, **params: Any) -> Any:
    return divide(total(operand, **params), divisor)


def _variance(total: Callable[..., Any], divide: Callable[..., Any], operand: Any, divisor: Any, **params: Any) -> Any:
    """The variance of as many entries as the divisor says; those that the operand lacks are zero."""
    axes = params["axes"]
    mean = divide(total(operand, **params), divisor)
    squares = total(jnp.square(operand - jnp.expand_dims(mean, axes)), **params)
    lacking = divisor - jnp.asarray(math.prod(operand.shape[axis] for axis in axes), operand.dtype)
    return divide(squares + lacking * jnp.square(mean), divisor)


def _deviating(flat: Flat, value: int, axes: Sequence[Any]) -> int | None:
    """The source of squares of what deviates from the source's own mean over some axes."""
    square = flat.made.get(value)
    if square is None or not (square.name == "square" or square.params.get("y") == 2 or square.name == "mul"):
        return None
    deviation = flat.made.get(square.inputs[0])
    if deviation is None or deviation.name != "sub" or set(square.inputs) != {deviation.outputs[0]}:
        return None
    source, mean = deviation.inputs
    shape, rank = flat.avals[mean].shape, len(flat.avals[source].shape)
    while mean in flat.made and flat.made[mean].name in ("broadcast_in_dim", "reshape"):
        mean = flat.made[mean].inputs[0]
    average = flat.made.get(mean)
    if average is None or average.name != "mean" or average.inputs[0] != source or average.params["axes"] != axes:
        return None
    kept = tuple(1 if a in axes else size for a, size in enumerate(flat.avals[source].shape))
    return source if len(shape) == rank and shape in (kept, flat.avals[source].shape) else None
