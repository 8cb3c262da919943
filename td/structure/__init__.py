"""The structure of a network, read from its function: kernels, first and last layers, units that go together, heads."""

from td.structure.api import trace
from td.structure.result import Structure

__all__ = ["Structure", "trace"]
