"""The one exception that a user may meet, and the checks that raise it.

A `UserError` says in one line what is wrong and what to do. The commands print it and exit; in a program it is an
ordinary `ValueError`.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class UserError(ValueError):
    """A mistake in what the user gave."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """List the valid names, the nearest one first."""
    names = sorted(valid)
    longer = [valid for valid in names if valid.startswith(str(name))]
    close = longer or difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    listed = f"valid: {', '.join(names)}"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`; a UserError names the nearest valid name."""
    if name not in table:
        raise UserError(f"unknown {what} {name!r}: {nearest(name, table)}")
    return table[name]


def check_seed(seed: int) -> None:
    """Reject a seed that no key can be made of."""
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is out of range: give a whole number from 0, below 2**32")


def entry(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`, or what an import path of the user's own names."""
    module, colon, attribute = str(name).partition(":")
    if not colon:
        return lookup(table, name, what)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "give package.module:name of something that is installed or on PYTHONPATH"
        raise UserError(f"{what} {name!r} cannot be imported ({error}): {advice}") from None


def extra(package: str, flag: str) -> Any:
    """Import a package that a flag such as --executor=ray needs; the extra is named like its value."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{flag} needs {package}: pip install -e '.[{flag.partition('=')[2]}]'") from None


def call_from_table(table: Mapping[str, Callable[..., T]], settings: Mapping[str, Any], what: str, **offered: Any) -> T:
    """Call the entry that a config section names, or the user's own, with the section's other settings."""
    function = entry(table, settings["name"], what)
    taken = set(inspect.signature(function).parameters) - {"name", "parent"}  # the last two are of every Flax module
    given = {name: value for name, value in settings.items() if name != "name"}
    for name in given:
        if name not in taken:
            raise UserError(f"{what} {settings['name']!r} takes no {name!r}: {nearest(name, taken)}")
    return function(**{name: value for name, value in offered.items() if name in taken} | given)


def check_fraction(name: str, value: Any, schedule: bool = False) -> None:
    """Reject a number outside [0, 1]. Traced values pass unchecked."""
    if (schedule and callable(value)) or isinstance(value, jax.core.Tracer):
        return
    try:
        number = None if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        advice = "give a number in [0, 1]" + (" or a function of the step" if schedule else "")
        raise UserError(f"{name}={value!r} is not a number: {advice}")
    if not 0 <= number <= 1:
        raise UserError(f"{name}={value!r} is out of range: give a number in [0, 1]")


def check_at_least(name: str, value: Any, least: int = 0, *, whole: bool = False) -> None:
    """Reject a number that is too small, or not whole. Traced values pass unchecked."""
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, str | bool) or not value >= least or (whole and value % 1 != 0):
        raise UserError(f"{name}={value!r} is out of range: give {'a whole number, ' * whole}{least} or more")


def check_choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Reject a word that is not among the valid ones."""
    valid = tuple(valid)
    if value not in valid:
        raise UserError(f"{name}={value!r} is not known: {nearest(value, valid)}")
