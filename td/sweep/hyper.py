"""Lists of settings and how they combine: the `h` that a config's `get_hyper(h)` gets, as in big_vision and scenic."""

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from td.errors import UserError

Settings = Mapping[str, Any]  # settings of a config by their full names, and arguments of its file


def sweep(name: str, values: Iterable[Any]) -> list[Settings]:
    """List the values of one setting; a leading `config.` is not part of its name."""
    return [{name.removeprefix("config."): value} for value in values]


def fixed(name: str, value: Any, length: int = 1) -> list[Settings]:
    """List one value of one setting, `length` times."""
    return sweep(name, [value] * length)


def product(sweeps: Sequence[Sequence[Settings]]) -> list[Settings]:
    """Combine every entry of each sweep with every entry of the others."""
    return [reduce(operator.or_, chosen, {}) for chosen in itertools.product(*sweeps)]


def zipit(sweeps: Sequence[Sequence[Settings]]) -> list[Settings]:
    """Combine the first entries of all sweeps, then the second ones; a sweep of one entry repeats it."""
    length = max(map(len, sweeps), default=0)
    if any(len(each) not in (1, length) for each in sweeps):
        raise UserError(f"zipit of sweeps of {[*map(len, sweeps)]} entries: give all the same number, or one")
    return [reduce(operator.or_, (each[i % len(each)] for each in sweeps), {}) for i in range(length)]


def chainit(sweeps: Iterable[Sequence[Settings]]) -> list[Settings]:
    """Append sweeps to each other."""
    return [*itertools.chain(*sweeps)]
