"""The structure of a network, read from its function: kernels, first and last layers, units that go together, heads."""

from td.structure.result import Structure
from td.structure.run import trace

__all__ = ["Structure", "trace"]
