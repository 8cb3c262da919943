"""Durations have a unit: "256 epochs", "100000 steps", "12800000 examples", or "20%" of the run."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from td.errors import UserError
from td.io.run_folder import flatten

_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(steps?|epochs?|examples?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) *%")


def to_steps(duration: str, train_examples: int, batch_size: int | float) -> int:
    """Convert a duration to steps, rounded to the nearest whole one."""
    number, unit = _parse(duration)
    examples = {"step": number * batch_size, "epoch": number * train_examples, "example": number}[unit.rstrip("s")]
    return round(examples / batch_size)


def _parse(duration: str) -> tuple[float, str]:
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        raise UserError(f"duration {duration!r} is not understood: write a number and steps, epochs or examples")
    return float(match[1]), match[2]


def expand_percent(config: ConfigDict) -> ConfigDict:
    """Replace durations in percent of the run by durations in the unit of the run's own."""

    def expand(value: Any) -> Any:
        match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return value
        length, unit = _parse(config.duration)
        return f"{float(match[1]) / 100 * length:.6f}".rstrip("0").rstrip(".") + f" {unit}"

    expanded, settings = ConfigDict(config.to_dict()), flatten(config.to_dict())
    expanded.update_from_flattened_dict({name: _each(expand, value) for name, value in settings.items()})
    return expanded


def resolve(
    settings: Mapping[str, Any], names: Collection[str], train_examples: int, batch_size: int | float
) -> dict[str, Any]:
    """Convert the named settings of a config section, durations or tuples of them, to steps."""

    def convert(value: Any) -> int:
        return to_steps(str(value), train_examples, batch_size)

    return {name: _each(convert, value) if name in names else value for name, value in settings.items()}


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to a setting, or to every entry of a tuple."""
    return tuple(map(function, value)) if isinstance(value, tuple | list) else function(value)
