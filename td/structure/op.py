"""One equation with its shapes."""

from typing import Any, NamedTuple

from jax.extend import source_info_util

from td.compact.indices import Shape


class Op(NamedTuple):
    """An equation with its shapes.

    Attributes:
      name: of the primitive.
      equation: as JAX traced it.
      params: of the primitive.
      shapes: of the operands.
      shape: of the first output.
    """

    name: str
    equation: Any
    params: dict[str, Any]
    shapes: tuple[Shape, ...]
    shape: Shape

    @property
    def where(self) -> str:
        """The primitive and the line of the user's source."""
        place = source_info_util.summarize(self.equation.source_info)
        return f"{self.name} at {place}" if place else self.name


def of_equation(equation: Any) -> Op:
    """Read an equation."""
    shapes = tuple(tuple(getattr(atom.aval, "shape", ())) for atom in equation.invars)
    shape = tuple(getattr(equation.outvars[0].aval, "shape", ()))
    return Op(equation.primitive.name, equation, equation.params, shapes, shape)


def resized(shape: Shape, axis: int, size: int) -> tuple[int, ...]:
    """A shape with another size of one axis."""
    return tuple(size if a == axis else n for a, n in enumerate(shape))
