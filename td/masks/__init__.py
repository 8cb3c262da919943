"""The methods, one file each, and the one table that names them in configs."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from td.base import MaskTransform, identity
from td.errors import UserError, lookup, nearest
from td.masks.dropout import dropout
from td.masks.random_prune import random_prune
from td.masks.targeted import ramping, targeted
from td.tree import KERNELS, Patterns

METHODS: dict[str, Callable[..., MaskTransform]] = {
    "none": identity,
    "targeted": targeted,
    "ramping": ramping,
    "dropout": dropout,
    "random_prune": random_prune,
}

__all__ = ["METHODS", "build", "dropout", "ramping", "random_prune", "targeted"]


def build(settings: Mapping[str, Any], kernels: Patterns = KERNELS) -> MaskTransform:
    """Make the method that a config names.

    Args:
      settings: `name`, a key of `METHODS`, and the factory's own arguments.
      kernels: regular expressions on paths, for the methods that choose kernels.

    Returns:
      The `MaskTransform`.

    Raises:
      UserError: unknown name, an argument that the method does not take, or a bad value.

    Example:
      >>> import jax
      >>> build({"name": "targeted", "granularity": "unit", "drop_rate": 0.5}).init(jax.random.key(0), {})
      MaskVars(gates=(), stats=())
    """
    arguments = {name: value for name, value in settings.items() if name != "name"}
    factory = lookup(METHODS, settings["name"], "method")
    taken = inspect.signature(factory).parameters
    for name in arguments:
        if name not in taken:
            raise UserError(f"method {settings['name']!r} takes no {name!r}: {nearest(name, taken)}")
    if "kernels" in taken:
        arguments.setdefault("kernels", kernels)
    return factory(**arguments)
