"""Which rows of a batch a host reads."""

from typing import NamedTuple


class Part(NamedTuple):
    """The rows of every batch that one of several hosts reads: the i-th of n, counted from 0.

    Example:
      >>> Part(1, 2).of(6)
      slice(3, 6, None)
    """

    number: int
    parts: int

    def of(self, rows: int) -> slice:
        """Which of so many rows; they divide evenly, as `make_mesh` has checked."""
        each = rows // self.parts
        return slice(self.number * each, (self.number + 1) * each)


WHOLE = Part(0, 1)
"""All rows."""
