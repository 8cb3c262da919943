"""Helpers for config files: typed arguments after the colon, and a method's settings with its own defaults."""

import inspect
from typing import Any

from ml_collections import ConfigDict

from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice, lookup, nearest
from td.masks import METHODS


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Read the text behind a config file's colon: `mask=targeted,granularity=unit,smoke`.

    Args:
      arg: comma-separated `name=value`; a bare name of a bool means true.
      **defaults: the names that are understood, with their default values, which give the types.

    Returns:
      One value a name.

    Raises:
      UserError: a name that is not understood, or a value of another type.

    Example:
      >>> parse_arg("mask=targeted,smoke", mask="none", smoke=False, seed=0).to_dict() == {
      ...     "mask": "targeted", "smoke": True, "seed": 0}
      True
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if name not in defaults:
            raise UserError(f"unknown config argument {name!r}: {nearest(name, defaults)}")
        values[name] = _convert(name, text if equals else "true", type(defaults[name]))
    return ConfigDict(values)


def _convert(name: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UserError(f"config argument {name}={text!r} is no {kind.__name__}") from None


def method(name: str, granularity: str = "weight", **settings: Any) -> ConfigDict:
    """A method's settings for a config: every argument of its factory, with the factory's defaults.

    Args:
      name: a key of `td.masks.METHODS`.
      granularity: for the methods that have one.
      **settings: other values, ignored by the methods that do not take them.

    Returns:
      `name` and the method's arguments; `kernels` is the config's own.

    Raises:
      UserError: unknown method or granularity.

    Example:
      >>> method("targeted", drop_rate=0.5).to_dict() == {"name": "targeted", "granularity": "weight",
      ...     "target_proportion": 0.75, "drop_rate": 0.5, "evaluation": "dense"}
      True
    """
    check_choice("granularity", granularity, GRANULARITIES)
    parameters = inspect.signature(lookup(METHODS, name, "method")).parameters
    values = {"granularity": granularity, **settings}
    chosen = {key: values.get(key, parameter.default) for key, parameter in parameters.items() if key != "kernels"}
    return ConfigDict({"name": name, **chosen})
