"""What a result file must have, so that a report can be made of it."""

from collections.abc import Mapping
from typing import Any

from td.errors import UserError
from td.evaluate.prune_curve import Row
from td.io.run_folder import flatten

MACHINE = {"devices": str, "processor": str, "cores": int}

FIELDS: dict[str, Any] = {
    **dict.fromkeys(("table", "column", "scale", "run", "granularity", "date", "commit"), str),
    **dict.fromkeys(
        (
            "settings.mask",
            "config.data.name",
            "versions.jax",
            "training.versions.jax",
            "training.date",
            "training.commit",
        ),
        str,
    ),
    **dict.fromkeys(("training.steps", "training.parameters", "seed"), int),
    **{f"{of}hardware.{name}": kind for of in ("", "training.") for name, kind in MACHINE.items()},
    "training.accuracy": float,
    "rates": list,
}
"""What every one has, with the type; sections with a dot."""

CHANGE = ("predicted", "first_order", "second_order", "actual", "accuracy_before", "accuracy_after")
"""What Table 1's have instead of curves."""


def checked(content: Any) -> dict[str, Any]:
    """The content of a result file; what is none, or is damaged, is refused."""
    flat = flatten(content) if isinstance(content, Mapping) else {}
    if lacking := sorted(set(FIELDS) - set(flat)):
        raise UserError(f"it lacks {', '.join(lacking)}")
    for name, kind in FIELDS.items():
        if not isinstance(flat[name], int | float if kind is float else kind) or isinstance(flat[name], bool):
            raise UserError(f"{name} is {flat[name]!r}, not of type {kind.__name__}")
    try:
        _check_numbers(content)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"its numbers cannot be read ({type(error).__name__}: {error})") from None
    return dict(content)


def _check_numbers(content: Mapping[str, Any]) -> None:
    """Read every number that a report shows."""
    numbers = [*content["rates"], *content.get("searched", {}).values()]
    content.get("changes", {}).items()  # an AttributeError where it is not a mapping
    if "change_of_loss" in content:
        numbers += [content["change_of_loss"][name] for name in CHANGE]
    else:
        if not content["curves"]["dense"]:
            raise ValueError("the curve is empty")
        for curve in content["curves"].values():
            for row in curve:
                Row(**row)
    for line in content.get("telemetry", ()):
        numbers += [line["step"], line["targets/changed"], *line.values()]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"{number!r} is not a number")
