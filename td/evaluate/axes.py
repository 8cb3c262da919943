"""Quantities of a prune curve's rows, for the axes of pictures."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from td.evaluate.prune_curve import Row

Curves = Mapping[str, Sequence[Row]]


class Axis(NamedTuple):
    """One axis of a picture.

    Attributes:
      label: Name, with its unit.
      field: Field of a row.
      other: The field of the same quantity of the recalibrated or of the uncompacted network.
      factor: Of the field's value.
      large: Write numbers with k, M and G.
    """

    label: str
    field: str
    other: str = ""
    factor: float = 1
    large: bool = False

    def of(self, row: Row) -> int | float:
        """Return the value of a row, 0 where it has none."""
        return self.factor * (getattr(row, self.field) or 0)

    def other_of(self, row: Row) -> int | float | None:
        """Return the value of the other network, None where it was not measured."""
        value = getattr(row, self.other) if self.other else None
        return None if value is None else self.factor * value


ACCURACY = Axis("accuracy (%)", "accuracy", "recalibrated_accuracy", 100)
TOKEN_ACCURACY = ACCURACY._replace(label="token accuracy (%)")
BLEU = Axis("BLEU, uncased", "bleu")

RATE = Axis("pruned after training (%)", "prune_rate", factor=100)

COST_AXES = {
    "rate": RATE,
    "latency": Axis("compacted network: ms for one example", "milliseconds_1", "uncompacted_milliseconds_1"),
    "latency128": Axis("compacted network: ms for 128 examples", "milliseconds_128", "uncompacted_milliseconds_128"),
    "flops": Axis("compacted network: FLOPs an example", "flops", large=True),
    "parameters": Axis("compacted network: parameters", "parameters", large=True),
    "bytes": Axis("compacted network: weights, compressed (B)", "compressed_bytes", large=True),
}
"""Horizontal axes by the words of `td-report --x`."""


def has_costs(rows: Sequence[Row]) -> bool:
    """Return True for a curve that was made with --compact."""
    return all(row.parameters is not None for row in rows)


def quantities(curves: Curves) -> tuple[Axis, ...]:
    """Choose the quantities of some curves: accuracy, or BLEU and token accuracy where all of them have it."""
    translated = all(row.bleu is not None for rows in curves.values() for row in rows)
    return (BLEU, TOKEN_ACCURACY) if translated else (ACCURACY,)
