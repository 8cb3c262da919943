"""One equation with its shapes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import source_info_util

from td.compact.indices import Shape


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

    @property
    def outputs(self) -> list[Any]:
        """The variables that it gives."""
        return list(self.equations[-1].outvars)


def of_equation(equation: Any, calls: Sequence[Any]) -> Op:
    """Read an equation inside some calls."""
    shapes = tuple(tuple(getattr(atom.aval, "shape", ())) for atom in equation.invars)
    shape = tuple(getattr(equation.outvars[0].aval, "shape", ()))
    return Op(equation.primitive.name, (*calls, equation), equation.params, shapes, shape)


def resized(shape: Shape, axis: int, size: int) -> tuple[int, ...]:
    """A shape with another size of one axis."""
    return tuple(size if a == axis else n for a, n in enumerate(shape))
