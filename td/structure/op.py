"""Equations with their shapes."""

from typing import Any, NamedTuple

from jax.extend import source_info_util

from td.program.indices import Shape, others


class Op(NamedTuple):
    """An equation with its shapes."""

    name: str  # of the primitive
    equations: tuple[Any, ...]  # the calls that it lies in, and itself, as JAX traced them
    params: dict[str, Any]  # of the primitive
    shapes: tuple[Shape, ...]  # of the operands
    shape: Shape  # of the first output

    @property
    def where(self) -> str:
        """The primitive and the line of the user's source."""
        places = (source_info_util.summarize(equation.source_info) for equation in reversed(self.equations))
        return " at ".join([self.name, *[place for place in places if place][:1]])


def resized(shape: Shape, axis: int, size: int) -> tuple[int, ...]:
    """A shape with another size of one axis."""
    return tuple(size if a == axis else n for a, n in enumerate(shape))


class Side(NamedTuple):
    """Axes of one operand of a `dot_general`, and the output's axis of every batch and free axis, in order."""

    batch: list[int]
    contracted: list[int]
    free: list[int]
    placed: dict[int, int]

    @property
    def rows(self) -> list[int]:
        return [*self.batch, *self.contracted]


def sides_of(op: Op) -> tuple[Side, Side]:
    """Read the dimension numbers of a `dot_general`."""
    contracted, batch = op.params["dimension_numbers"]
    start, sides = len(batch[0]), []
    for side in (0, 1):
        free = others(len(op.shapes[side]), *batch[side], *contracted[side])
        placed = {axis: i for i, axis in enumerate(batch[side])} | {axis: start + i for i, axis in enumerate(free)}
        sides.append(Side(list(batch[side]), list(contracted[side]), free, placed))
        start += len(free)
    return sides[0], sides[1]
