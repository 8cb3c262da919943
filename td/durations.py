"""Durations carry their unit: "256 epochs", "100000 steps" or "12800000 examples"."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from td.errors import UserError

_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(steps?|epochs?|examples?)")


def to_steps(duration: str, train_examples: int, batch_size: int | float) -> int:
    """Convert a duration to steps, rounded to the nearest whole one.

    Args:
      duration: a number and its unit.
      train_examples: examples of one epoch.
      batch_size: examples of one step, on average.

    Returns:
      The number of steps.

    Raises:
      UserError: there is no unit, or another one.

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


DURATIONS = ("warmup", "boundaries", "stage", "begin", "end", "interval", "rewind")
"""The settings of a method or an optimiser that are durations, or tuples of them."""


def resolve(
    settings: Mapping[str, Any], train_examples: int, batch_size: int | float, names: Iterable[str] = DURATIONS
) -> dict[str, Any]:
    """Replace every duration in a config section by its number of steps, and 0 `examples` by those of an epoch.

    Args:
      settings: one section of a config.
      train_examples: examples of one epoch.
      batch_size: examples of one step, on average.
      names: the settings that are durations.

    Returns:
      A plain dict.

    Raises:
      UserError: one of them is no duration.

    Example:
      >>> resolve({"name": "ramping", "stage": "2 epochs"}, train_examples=100, batch_size=10)
      {'name': 'ramping', 'stage': 20}
    """

    def convert(name: str, value: Any) -> Any:
        if name == "examples" and value == 0:
            return train_examples
        if name not in names:
            return value
        if isinstance(value, tuple | list):
            return tuple(to_steps(str(entry), train_examples, batch_size) for entry in value)
        return to_steps(str(value), train_examples, batch_size)

    return {name: convert(name, value) for name, value in settings.items()}
