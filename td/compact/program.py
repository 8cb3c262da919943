"""A function as numbered values and the equations between them."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Equation(NamedTuple):
    """One operation on numbered values."""

    name: str
    bind: Callable[..., Any]
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Program(NamedTuple):
    """Equations in order."""

    equations: list[Equation]
    avals: dict[int, Any]  # shape and dtype of every value
    numbers: dict[int, Any]  # arrays that are written in the function
    leaves: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    out_tree: Any
    lost: list[str]  # functions whose custom derivative became that of their equations

    def shape(self, value: int) -> tuple[Any, ...]:
        return tuple(self.avals[value].shape)

    @property
    def structure(self) -> tuple[Any, ...]:
        """Equal for two programs that differ in sizes alone."""
        ranks = tuple(len(aval.shape) for aval in self.avals.values())
        return tuple((e.name, e.inputs, e.outputs) for e in self.equations), self.outputs, ranks
