"""Sizes that depend on the inputs, found by traces at other sizes."""

from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, NamedTuple

import jax
import numpy as np

from td.program.equations import Program, is_key
from td.program.simplify import is_symbolic
from td.program.trace import trace


class Sizes(NamedTuple):
    """Sizes that depend on the inputs."""

    dynamic_axes: dict[int, tuple[bool, ...]]  # of every value, one flag an axis
    size_dependent: frozenset[int]  # numbers in the function
    seen: tuple[Program, ...]  # the function at the input sizes that it was traced at


def probe(function: Callable[..., Any], params: Any, inputs: Sequence[Any], program: Program) -> Sizes:
    """Double as many axes of the inputs as the function allows, together where it can, else one by one."""
    leaves, tree = jax.tree.flatten(inputs)
    found: set[tuple[int, int]] = set()
    seen = [program]

    def traced(axes: Set[tuple[int, int]], factor: float) -> Program | None:
        """The function with some axes of its inputs longer or shorter; None where it does not take this size."""
        size = {(i, axis): int(factor * leaves[i].shape[axis]) for i, axis in axes}
        shapes = [tuple(size.get((i, axis), n) for axis, n in enumerate(leaf.shape)) for i, leaf in enumerate(leaves)]
        other = [leaf.update(shape=shape) for shape, leaf in zip(shapes, leaves, strict=True)]
        try:
            return trace(function, params, jax.tree.unflatten(tree, other)) if 0 not in size.values() else None
        except Exception:  # of any kind
            return None

    for axes in dict.fromkeys(map(frozenset, _candidates([leaf.shape for leaf in leaves]))):
        for factor in () if axes <= found else (2.0, 0.5):  # twice may be too long, as for a table of positions
            other = traced(axes, factor)
            if other is not None and other.structure == program.structure:
                found |= axes
                seen.append(other)
                break
    dynamic_axes = {
        value: tuple(any(o.shape(value)[a] != size for o in seen) for a, size in enumerate(program.shape(value)))
        for value in program.avals
    }
    size_dependent = {v for v, n in program.numbers.items() if any(not same_number(n, o.numbers.get(v)) for o in seen)}
    return Sizes(dynamic_axes, frozenset(size_dependent), tuple(seen))


def _candidates(shapes: Sequence[tuple[int, ...]]) -> Iterable[set[tuple[int, int]]]:
    """From the most axes to single ones: channels are last in images, inputs share batches and, as masks, lengths."""
    every = [(i, axis) for i, shape in enumerate(shapes) for axis in range(len(shape))]
    last = {(i, len(shape) - 1) for i, shape in enumerate(shapes)}
    yield {(i, axis) for i, axis in every if (i, axis) not in last or len(shapes[i]) == 2}
    yield {(i, axis) for i, axis in every if axis == 0}
    yield {*every} - last
    for size in dict.fromkeys(shapes[i][axis] for i, axis in every):
        alike = {(i, axis) for i, axis in every if shapes[i][axis] == size}
        yield alike
        for shape in shapes:  # as many channels as tokens, but a mask has none
            yield {(i, axis) for i, axis in alike if len(shapes[i]) != len(shape) or (i, axis) not in last}
    yield from ({(i, axis)} for i, axis in every if axis > 0)
    yield from ({(i, axis)} for i, axis in every if axis == 0 and len(shapes) > 1)


def same_number(one: Any, other: Any) -> bool:
    """Compare two numbers of one shape."""
    if one is other:
        return True
    traced = any(isinstance(number, jax.core.Tracer) or is_symbolic(number) for number in (one, other))
    if other is None or np.shape(one) != np.shape(other) or traced:
        return False
    return is_key(jax.dtypes.result_type(one)) or np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
