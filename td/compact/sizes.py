"""Which axes grow with the inputs, found by tracing the function again at other input sizes."""

from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact.program import Program
from td.compact.trace import trace


class Sizes(NamedTuple):
    """Sizes that depend on the inputs.

    Attributes:
      dynamic_axes: of every value, one flag an axis: its size depends on the inputs'.
      size_dependent: numbers in the function that depend on the inputs' sizes.
      seen: the function at the other input sizes that it was traced at.
    """

    dynamic_axes: dict[int, tuple[bool, ...]]
    size_dependent: frozenset[int]
    seen: tuple[Program, ...]


def probe(function: Callable[..., Any], params: Any, inputs: Sequence[Any], program: Program) -> Sizes:
    """Double as many axes of the inputs as the function allows, together where it can, else one by one.

    Where twice the size is too long, as for a table of positions, half of it is tried.
    """
    leaves, tree = jax.tree.flatten(inputs)
    found: set[tuple[int, int]] = set()
    others: list[Program] = []
    for axes in dict.fromkeys(map(frozenset, _candidates([leaf.shape for leaf in leaves]))):
        if axes <= found:
            continue
        for factor in (2.0, 0.5):
            other = _traced(function, params, tree, _resized(leaves, axes, factor))
            if other is not None and other.structure == program.structure:
                found |= axes
                others.append(other)
                break
    dynamic_axes = {
        value: tuple(any(o.shape(value)[a] != size for o in others) for a, size in enumerate(program.shape(value)))
        for value in program.avals
    }
    size_dependent = {
        v for v, n in program.numbers.items() if any(not same_number(n, o.numbers.get(v)) for o in others)
    }
    return Sizes(dynamic_axes, frozenset(size_dependent), tuple(others))


def _candidates(shapes: Sequence[tuple[int, ...]]) -> Iterable[set[tuple[int, int]]]:
    """From the most axes to single ones: channels are last in images, inputs share batches and, as masks, lengths."""
    every = [(input_index, axis) for input_index, shape in enumerate(shapes) for axis in range(len(shape))]
    ranks = {input_index: len(shape) for input_index, shape in enumerate(shapes)}
    yield {
        (input_index, axis) for input_index, axis in every if axis < ranks[input_index] - 1 or ranks[input_index] == 2
    }
    yield {(input_index, axis) for input_index, axis in every if axis == 0}
    yield {(input_index, axis) for input_index, axis in every if axis < ranks[input_index] - 1}
    for size in dict.fromkeys(shapes[input_index][axis] for input_index, axis in every):
        alike = {(input_index, axis) for input_index, axis in every if shapes[input_index][axis] == size}
        yield alike
        for rank in ranks.values():  # as many channels as tokens, but a mask has none
            yield {(input_index, axis) for input_index, axis in alike if ranks[input_index] != rank or axis < rank - 1}
    for input_index, axis in every:
        if axis > 0:
            yield {(input_index, axis)}
    for input_index, axis in every:
        if axis == 0 and len(shapes) > 1:
            yield {(input_index, axis)}


def _traced(function: Callable[..., Any], params: Any, tree: Any, leaves: Sequence[Any] | None) -> Program | None:
    if leaves is None:
        return None
    try:
        return trace(function, params, jax.tree.unflatten(tree, leaves))
    except Exception:  # whatever a function raises says only that it does not take this size
        return None


def _resized(leaves: Sequence[Any], axes: Set[tuple[int, int]], factor: float) -> list[Any] | None:
    """The leaves with some axes longer or shorter; None where one of these would be left with nothing."""
    resized = []
    for input_index, leaf in enumerate(leaves):
        shape = [int(factor * size) if (input_index, axis) in axes else size for axis, size in enumerate(leaf.shape)]
        if any((input_index, axis) in axes and size < 1 for axis, size in enumerate(shape)):
            return None
        resized.append(jax.ShapeDtypeStruct(tuple(shape), leaf.dtype, weak_type=leaf.weak_type))
    return resized


def same_number(one: Any, other: Any) -> bool:
    """Whether two numbers are equal; arrays whose axes grew are told apart by their values, not here."""
    if one is other:
        return True
    if other is None or np.shape(one) != np.shape(other):
        return False
    if isinstance(one, jax.core.Tracer) or isinstance(other, jax.core.Tracer):
        return False
    if jax.dtypes.issubdtype(jax.dtypes.result_type(one), jax.dtypes.extended):
        return True
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True))
