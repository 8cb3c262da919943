"""The one exception that a user may meet, and the checks that raise it.

A `UserError` is one line that says what is wrong and what to do. The command lines print it and exit; in a
program it is an ordinary `ValueError`.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class UserError(ValueError):
    """A mistake in what the user gave, in one line."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which names are valid, the nearest one first.

    Args:
      name: what was given.
      valid: the names that exist.

    Returns:
      A half sentence for the end of an error line.

    Example:
      >>> nearest("targetd", ["targeted", "dropout"])
      "did you mean 'targeted'? (valid: dropout, targeted)"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    listed = f"valid: {', '.join(names)}"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`.

    Args:
      table: name -> entry.
      name: the entry's name.
      what: the kind of thing, for the error line.

    Returns:
      The entry.

    Raises:
      UserError: there is no such name; the line gives the nearest valid one.

    Example:
      >>> lookup({"mlp": 1}, "mpl", "model")
      Traceback (most recent call last):
        ...
      td.errors.UserError: unknown model 'mpl': did you mean 'mlp'? (valid: mlp)
    """
    if name not in table:
        raise UserError(f"unknown {what} {name!r}: {nearest(name, table)}")
    return table[name]


def check_seed(seed: int) -> None:
    """Refuse a seed that no key can be made of.

    Args:
      seed: a whole number in [0, 2**32).

    Raises:
      UserError: it is not.

    Example:
      >>> check_seed(2**32)
      Traceback (most recent call last):
        ...
      td.errors.UserError: seed=4294967296 is out of range: give a whole number from 0, below 2**32
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is out of range: give a whole number from 0, below 2**32")


def entry(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`, or what an import path of the user's own names.

    Args:
      table: name -> entry.
      name: the entry's name, or "package.module:attribute".
      what: the kind of thing, for the error line.

    Returns:
      The entry.

    Raises:
      UserError: there is no such name, or it cannot be imported.

    Example:
      >>> entry({}, "math:hypot", "function")(3, 4)
      5.0
      >>> entry({}, "maths:hypot", "function")
      Traceback (most recent call last):
        ...
      td.errors.UserError: function 'maths:hypot' cannot be imported (No module named 'maths'): give ...
    """
    module, colon, attribute = str(name).partition(":")
    if not colon:
        return lookup(table, name, what)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "give package.module:name of something that is installed or on PYTHONPATH"
        raise UserError(f"{what} {name!r} cannot be imported ({error}): {advice}") from None


def call_from_table(table: Mapping[str, Callable[..., T]], settings: Mapping[str, Any], what: str, **offered: Any) -> T:
    """Call the entry that a config section names, or the user's own, with the section's other settings.

    Args:
      table: name -> function.
      settings: `name`, which may be an import path, and the function's arguments.
      what: the kind of thing, for the error line.
      **offered: further arguments, for a function that takes them and is not given them by the settings.

    Returns:
      What the function returns.

    Raises:
      UserError: there is no such name, or the function takes no such argument; the line gives the nearest valid one.

    Example:
      >>> call_from_table({"half": lambda of: of / 2}, {"name": "half", "of": 3}, "share", by=4)
      1.5
      >>> call_from_table({"half": lambda of: of / 2}, {"name": "half", "off": 3}, "share")
      Traceback (most recent call last):
        ...
      td.errors.UserError: share 'half' takes no 'off': did you mean 'of'? (valid: of)
    """
    function = entry(table, settings["name"], what)
    taken = set(inspect.signature(function).parameters) - {"name", "parent"}  # the last two are of every Flax module
    given = {name: value for name, value in settings.items() if name != "name"}
    for name in given:
        if name not in taken:
            raise UserError(f"{what} {settings['name']!r} takes no {name!r}: {nearest(name, taken)}")
    return function(**{name: value for name, value in offered.items() if name in taken} | given)


def check_share(name: str, value: Any, schedule: bool = False) -> None:
    """Refuse a number outside [0, 1]. Traced values pass: nobody knows them yet.

    Args:
      name: the argument's name, for the error line.
      value: a number or an array.
      schedule: whether a function of the step is welcome, too.

    Raises:
      UserError: it is a number outside [0, 1], or no number at all.

    Example:
      >>> check_share("drop_rate", 1.5)
      Traceback (most recent call last):
        ...
      td.errors.UserError: drop_rate=1.5 is out of range: give a share in [0, 1]
    """
    if (schedule and callable(value)) or isinstance(value, jax.core.Tracer):
        return
    try:
        number = None if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        advice = "give a share in [0, 1]" + (" or a function of the step" if schedule else "")
        raise UserError(f"{name}={value!r} is not a number: {advice}")
    if not 0 <= number <= 1:
        raise UserError(f"{name}={value!r} is out of range: give a share in [0, 1]")


def check_at_least(name: str, value: Any, least: int = 0, *, whole: bool = False) -> None:
    """Refuse a number that is too small, or not whole. Traced values pass: nobody knows them yet.

    Args:
      name: the argument's name, for the error line.
      value: the number.
      least: the smallest that is allowed.
      whole: whether it is a count.

    Raises:
      UserError: it is smaller, or no number at all, or not a whole one.

    Example:
      >>> check_at_least("cost", -1.0)
      Traceback (most recent call last):
        ...
      td.errors.UserError: cost=-1.0 is out of range: give 0 or more
    """
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, str | bool) or not value >= least or (whole and value % 1 != 0):
        raise UserError(f"{name}={value!r} is out of range: give {'a whole number, ' * whole}{least} or more")


def check_choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Refuse a word that is not among the valid ones.

    Args:
      name: the argument's name, for the error line.
      value: the word.
      valid: the words that are understood.

    Raises:
      UserError: with the nearest valid word.

    Example:
      >>> check_choice("granularity", "wieght", ("weight", "unit"))
      Traceback (most recent call last):
        ...
      td.errors.UserError: granularity='wieght' is not known: did you mean 'weight'? (valid: unit, weight)
    """
    valid = tuple(valid)
    if value not in valid:
        raise UserError(f"{name}={value!r} is not known: {nearest(value, valid)}")
