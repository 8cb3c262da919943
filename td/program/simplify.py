"""Rewriting while tracing, so that programs are equal at every input size: known indices, means and variances."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.errors import InconclusiveDimensionOperation
from jax.export import is_symbolic_dim
from jaxtyping import Array

from td.program.equations import Equation
from td.program.indices import others

MOST = 4096
"""Entries up to which whole numbers are computed while tracing; of floats, scalars alone."""

ON_HOST: dict[str, Callable[..., Any]] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "rev": np.flip},
    **{
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
    },
    "concatenate": lambda *x: np.concatenate(x),
    "convert_element_type": lambda x: x,
    "broadcast_in_dim": lambda x: x,
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
}
"""Operations on known numbers, symbolic sizes included."""


class Flat(Protocol):
    """Equations and values inlined so far."""

    avals: dict[int, Any]
    numbers: dict[int, Any]
    known: dict[int, np.ndarray]
    made: dict[int, Equation]

    def number(self, number: Any, aval: Any = None) -> int: ...

    def add(
        self, name: str, bind: Callable[..., Any], params: dict[str, Any], inputs: Sequence[int], avals: Sequence[Any]
    ) -> list[int]: ...

    def traced(self, function: Callable[..., Any], inputs: Sequence[int]) -> list[int]: ...


def simplified(flat: Flat, equation: Any, bind: Callable[..., Any], inputs: list[int]) -> list[int] | None:
    """The values that replace an equation's outputs; None where it stays."""
    name, params, avals = equation.primitive.name, equation.params, [v.aval for v in equation.outvars]
    if name in ("sort", "top_k"):  # an equation for each output; the compiler joins them again
        chosen = partial(_chosen, bind)
        return [flat.add(name, chosen, {**params, "place": i}, inputs, [aval])[0] for i, aval in enumerate(avals)]
    if name == "dim_as_value":
        return [flat.number(_of_objects(params["dim"]), avals[0])]
    if name == "iota" and len(avals[0].shape) == 1 and _is_small(avals[0]):
        (output,) = flat.add(name, bind, params, inputs, avals)
        flat.known[output] = np.arange(avals[0].shape[0]).astype(avals[0].dtype)
        return [output]
    if name in ("add", "mul") and jnp.issubdtype(avals[0].dtype, jnp.integer):  # as `arange` has for symbolic sizes
        for one, other in (inputs, inputs[::-1]):
            number = flat.known[one] if one in flat.numbers else None
            if number is not None and flat.avals[other].shape == avals[0].shape and (number == (name == "mul")).all():
                return [other]
    if name == "select_n" and inputs[0] in flat.numbers and len(set((which := flat.known[inputs[0]]).flat)) == 1:
        return [inputs[1 + int(which.flat[0])]]
    # For a symbolic batch, `x[:, ::2]` has the indices of an `iota`; one's own `iota` may be longer at other sizes.
    if name == "gather" and inputs[1] in (flat.known if params["unique_indices"] else flat.numbers):
        return _selected(flat, params, inputs[0], flat.known[inputs[1]], avals)
    if name == "div":
        return _mean(flat, equation, bind, inputs)
    return _computed(flat, equation, bind, inputs) if name in ON_HOST else None


def _chosen(bind: Callable[..., Any], *operands: Any, place: int, **params: Any) -> Any:
    return bind(*operands, **params)[place]


def _is_small(aval: Any) -> bool:
    whole = jnp.issubdtype(aval.dtype, jnp.integer) or aval.dtype == bool
    return not any(map(is_symbolic_dim, aval.shape)) and math.prod(aval.shape) <= (MOST if whole else 1)


def host(number: Any, aval: Any) -> np.ndarray | None:
    """A small number of the function, to compute with."""
    return np.asarray(number) if isinstance(number, np.ndarray | np.generic | int | float) and _is_small(aval) else None


def _of_objects(dim: Any) -> np.ndarray:
    array = np.empty((), object)
    array[()] = dim
    return array


def is_symbolic(number: Any) -> bool:
    """Test for a number of symbolic sizes."""
    return isinstance(number, np.ndarray) and number.dtype.kind == "O"


def on_device(number: Any, aval: Any) -> Array:
    """A number as an array, its symbolic sizes as those of the call."""
    if not is_symbolic(number):
        return jnp.asarray(number)
    return jnp.stack([jnp.asarray(entry) for entry in number.flat]).reshape(number.shape).astype(aval.dtype)


def _computed(flat: Flat, equation: Any, bind: Callable[..., Any], inputs: list[int]) -> list[int] | None:
    """Compute known numbers; the equation stays where they come from an `iota`, which other sizes may make longer."""
    aval, operands = equation.outvars[0].aval, [flat.known.get(value) for value in inputs]
    if any(operand is None for operand in operands) or not _is_small(aval):
        return None
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(ON_HOST[equation.primitive.name](*operands))
    except InconclusiveDimensionOperation:
        return None
    if equation.primitive.name == "broadcast_in_dim":
        axes = equation.params["broadcast_dimensions"]
        found = found.reshape([found.shape[axes.index(a)] if a in axes else 1 for a in range(len(aval.shape))])
    found = np.broadcast_to(found, aval.shape)
    if not any(map(is_symbolic_dim, found.flat)):
        found = found.astype(aval.dtype)
    if all(value in flat.numbers for value in inputs):
        return [flat.number(found, aval)]
    (output,) = flat.add(equation.primitive.name, bind, equation.params, inputs, [aval])
    flat.known[output] = found
    return [output]


def _selected(flat: Flat, params: Any, array: int, index: np.ndarray, avals: Sequence[Any]) -> list[int] | None:
    """A gather at known indices as a slice, as `x[:, 0]` is for known sizes, or several of one axis as `take`."""
    numbers, taken, shape = params["dimension_numbers"], params["slice_sizes"], flat.avals[array].shape
    axes, dropped, lines = numbers.start_index_map, numbers.collapsed_slice_dims, index.reshape(-1, index.shape[-1]).T
    whole = {axis for axis, (size, part) in enumerate(zip(shape, taken, strict=True)) if size == part}
    several = index.ndim == 2 and axes == dropped and len(axes) == 1
    offset = others(len(shape), *axes) if several else range(len(shape) - len(dropped))
    if {*others(len(shape), *axes)} - whole or numbers.offset_dims != tuple(offset) or not (several or index.ndim == 1):
        return None
    try:
        ends = [(line[0], line[-1] + taken[axis]) for axis, line in zip(axes, lines, strict=True)]
        if params["mode"] != lax.GatherScatterMode.PROMISE_IN_BOUNDS and any(
            entry < 0 or entry + taken[axis] > shape[axis]
            for axis, line in zip(axes, lines, strict=True)
            for entry in line
        ):
            return None
        steps = {int(step) for step in np.diff(lines[0])} or {1}
    except InconclusiveDimensionOperation:
        return None
    if len(steps) > 1 or min(steps) < 1:
        return flat.add("take", _take, {"axis": axes[0], "indices": lines[0]}, [array], avals)

    # By hand, as tracing would compare symbolic sizes.
    starts, limits, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, (start, end) in zip(axes, ends, strict=True):
        starts[axis], limits[axis], strides[axis] = start, end, min(steps)
    if any(starts) or limits != list(shape) or min(steps) > 1:
        params = {"start_indices": tuple(starts), "limit_indices": tuple(limits), "strides": tuple(strides)}
        sizes = [-(-(end - start) // step) for start, end, step in zip(starts, limits, strides, strict=True)]
        (array,) = flat.add("slice", lax.slice, params, [array], [flat.avals[array].update(shape=tuple(sizes))])
    return [array] if several or not dropped else flat.traced(lambda array: lax.squeeze(array, dropped), [array])


def _take(array: Array, axis: int, indices: np.ndarray) -> Array:
    return jnp.take(array, on_device(indices, jax.typeof(jnp.int32(0))), axis, mode="clip")


def _mean(flat: Flat, equation: Any, bind: Callable[..., Any], inputs: list[int]) -> list[int] | None:
    """A sum, possibly broadcast, divided by its count, which depends on an image's size: a mean or a variance."""
    spread = flat.made.get(inputs[0])
    total = flat.made.get(spread.inputs[0]) if spread is not None and spread.name == "broadcast_in_dim" else spread
    divisor, divided = flat.known.get(inputs[1]), equation.outvars[0].aval
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
    if spread is total:
        return output
    return flat.add(spread.name, spread.bind, spread.params, output, [divided])


def _average(
    total: Callable[..., Any], divide: Callable[..., Any], operand: Array, divisor: Array, **params: Any
) -> Any:
    return divide(total(operand, **params), divisor)


def _variance(
    total: Callable[..., Any], divide: Callable[..., Any], operand: Array, divisor: Array, **params: Any
) -> Any:
    """The variance of as many entries as the divisor says; those that the operand lacks are zero."""
    axes = params["axes"]
    mean = divide(total(operand, **params), divisor)
    squares = total(jnp.square(operand - jnp.expand_dims(mean, axes)), **params)
    lacking = divisor - jnp.asarray(math.prod(operand.shape[axis] for axis in axes), operand.dtype)
    return divide(squares + lacking * jnp.square(mean), divisor)


def _deviating(flat: Flat, value: int, axes: Sequence[int]) -> int | None:
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
