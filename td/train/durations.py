"""Durations carry their unit: "256 epochs", "100000 steps" or "12800000 examples"."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from td.errors import UserError

_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(steps?|epochs?|examples?)")


def to_steps(duration: str, train_examples: int, batch_size: int | float) -> int:
    """Convert a duration to steps, rounded to the nearest whole one."""
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
    """Convert the named settings of a config section, durations or tuples of them, to steps."""

    def convert(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(convert(entry) for entry in value)
        return to_steps(str(value), train_examples, batch_size)

    return {name: convert(value) if name in names else value for name, value in settings.items()}
