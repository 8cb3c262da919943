"""Which axes grow with the inputs, found by tracing the function again at other input sizes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact.trace import Program, trace


class Sizes(NamedTuple):
    """`free[value]`, one flag an axis: its size depends on the inputs'. `written`: numbers that depend on it.

    `seen`: the function at the other input sizes that it was traced at.
    """

    free: dict[int, tuple[bool, ...]]
    written: frozenset[int]
    seen: tuple[Program, ...]


def probe(function: Callable[..., Any], params: Any, inputs: Sequence[Any], program: Program) -> Sizes:
    """Double as many axes of the inputs as the function allows, together where it can, else one by one."""
    leaves, tree = jax.tree.flatten(inputs)
    found: set[tuple[int, int]] = set()
    others: list[Program] = []
    for axes in _candidates([leaf.shape for leaf in leaves]):
        if axes <= found:
            continue
        grown = [_grown(leaf, {axis for place, axis in axes if place == i}) for i, leaf in enumerate(leaves)]
        try:
            other = trace(function, params, jax.tree.unflatten(tree, grown))
        except Exception:  # whatever a function raises says only that it does not take this size
            continue
        if other.structure == program.structure:
            found |= axes
            others.append(other)
    free = {
        value: tuple(any(o.shape(value)[a] != size for o in others) for a, size in enumerate(program.shape(value)))
        for value in program.avals
    }
    written = {v for v, n in program.numbers.items() if any(not same_number(n, o.numbers.get(v)) for o in others)}
    return Sizes(free, frozenset(written), tuple(others))


def _candidates(shapes: Sequence[tuple[int, ...]]) -> Iterable[set[tuple[int, int]]]:
    """From the most axes to single ones: channels are last in images, and only batches are shared by all inputs."""
    every = [(place, axis) for place, shape in enumerate(shapes) for axis in range(len(shape))]
    ranks = {place: len(shape) for place, shape in enumerate(shapes)}
    yield {(place, axis) for place, axis in every if axis < ranks[place] - 1 or ranks[place] == 2}
    yield {(place, axis) for place, axis in every if axis == 0}
    yield {(place, axis) for place, axis in every if axis < ranks[place] - 1}
    for place, axis in every:
        if axis > 0:
            yield {(place, axis)}
    for place, axis in every:
        if axis == 0 and len(shapes) > 1:
            yield {(place, axis)}


def _grown(leaf: Any, axes: set[int]) -> Any:
    shape = tuple(2 * size if axis in axes else size for axis, size in enumerate(leaf.shape))
    return jax.ShapeDtypeStruct(shape, leaf.dtype, weak_type=leaf.weak_type)


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
