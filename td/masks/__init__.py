"""The methods, a file for each family, and the one table that names them in configs."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from td.base import MaskTransform, StepCount, identity
from td.errors import call_from_table, entry
from td.kernels import KERNELS, Patterns
from td.masks.dropout import dropout
from td.masks.fixed import as_mask_vars, fixed_masks
from td.masks.gradual import gradual
from td.masks.l0 import l0
from td.masks.lottery import draw_ticket, lottery
from td.masks.penalties import group_lasso, l1
from td.masks.ramping import ramping, random_targets, xtreme
from td.masks.random_prune import random_prune
from td.masks.smallify import smallify
from td.masks.targeted import targeted
from td.masks.variational import variational

METHODS: dict[str, Callable[..., MaskTransform]] = {
    "none": identity,
    "targeted": targeted,
    "ramping": ramping,
    "xtreme": xtreme,
    "random_targets": random_targets,
    "dropout": dropout,
    "random_prune": random_prune,
    "l1": l1,
    "group_lasso": group_lasso,
    "l0": l0,
    "variational": variational,
    "smallify": smallify,
    "gradual": gradual,
    "lottery": lottery,
    "fixed": fixed_masks,
}
"""The methods by their names in configs."""

REPLACE_WEIGHT_DECAY = ("variational",)
"""Methods whose prior takes the place of weight decay."""

__all__ = [
    "METHODS",
    "REPLACE_WEIGHT_DECAY",
    "arguments",
    "as_mask_vars",
    "build",
    "draw_ticket",
    "dropout",
    "durations",
    "fixed_masks",
    "gradual",
    "group_lasso",
    "l0",
    "l1",
    "lottery",
    "ramping",
    "random_prune",
    "random_targets",
    "smallify",
    "targeted",
    "variational",
    "xtreme",
]


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
    return call_from_table(METHODS, settings, "method", kernels=kernels)


def arguments(name: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a method.

    Args:
      name: a key of `METHODS`, or an import path.

    Returns:
      Their names, types and defaults, in order.

    Raises:
      UserError: unknown name.

    Example:
      >>> arguments("dropout")["drop_rate"].default
      0.25
    """
    return inspect.signature(entry(METHODS, name, "method")).parameters


def durations(name: str) -> tuple[str, ...]:
    """The arguments of a method that are numbers of steps.

    Args:
      name: a key of `METHODS`.

    Returns:
      Their names.

    Raises:
      UserError: unknown name.

    Example:
      >>> durations("gradual")
      ('begin', 'end', 'interval')
    """
    return tuple(argument for argument, its in arguments(name).items() if its.annotation is StepCount)
