"""Durations carry their unit: "256 epochs", "100000 steps" or "12800000 examples"."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from td.errors import UserError

_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(steps?|epochs?|examples?)")


def to_steps(duration: str, train_examples: int, batch_size: int | float) -> int:
    """Convert a duration to steps, rounded to the nearest whole one.

    Example:
      >>> to_steps("256 epochs", train_examples=50_000, batch_size=128)
      100000
      >>> to_steps("10", 100, 10)
      Traceback (most recent call last):
        ...
      td.errors.UserError: duration '10' is not understood: write a number and steps, epochs or examples, as '3 epochs'
    """
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        raise UserError(
            f"duration {duration!r} is not understood: write a number and steps, epochs or examples, as '3 epochs'"
        )
    number, unit = float(match[1]), match[2].rstrip("s")
    examples = {"step": number * batch_size, "epoch": number * train_examples, "example": number}[unit]
    return round(examples / batch_size)


def resolve(
    settings: Mapping[str, Any], names: Collection[str], train_examples: int, batch_size: int | float
) -> dict[str, Any]:
    """Replace the named settings of a config section, durations or tuples of them, by numbers of steps.

    Example:
      >>> resolve({"name": "ramping", "stage": "2 epochs"}, ["stage"], train_examples=100, batch_size=10)
      {'name': 'ramping', 'stage': 20}
    """

    def convert(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(convert(entry) for entry in value)
        return to_steps(str(value), train_examples, batch_size)

    return {name: convert(value) if name in names else value for name, value in settings.items()}
