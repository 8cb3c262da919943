"""Sweeps as plain lists of settings.

A name with a dot, `duration` and `kernels` are settings of a config; any other is an argument of its file.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from td.errors import UserError

Settings = dict[str, Any]


def product(choices: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Every combination of some values.

    Example:
      >>> product({"mask": ["none", "dropout"], "seed": [0]})
      [{'mask': 'none', 'seed': 0}, {'mask': 'dropout', 'seed': 0}]
    """
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def zipped(choices: Mapping[str, Any]) -> list[Settings]:
    """The first values of all names, then the second ones and so on; what is not a list goes with each.

    Example:
      >>> zipped({"mask": "targeted", "mask.drop_rate": [0.5, 0.66]})
      [{'mask': 'targeted', 'mask.drop_rate': 0.5}, {'mask': 'targeted', 'mask.drop_rate': 0.66}]
    """
    lengths = {len(values) for values in choices.values() if isinstance(values, list)}
    if len(lengths) != 1:
        raise UserError(f"cannot zip lists of {sorted(lengths) or 'no'} values: give lists of one length")
    (length,) = lengths
    columns = [values if isinstance(values, list) else [values] * length for values in choices.values()]
    return [dict(zip(choices, row, strict=True)) for row in zip(*columns, strict=True)]


def chain(*sweeps: Sequence[Settings]) -> list[Settings]:
    """One sweep after the other.

    Example:
      >>> chain([{"mask": "none"}], [{"mask": "l1"}])
      [{'mask': 'none'}, {'mask': 'l1'}]
    """
    return list(itertools.chain(*sweeps))
