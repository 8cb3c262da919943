"""The methods, a file for each family, and one record each with what the rest of `td` uses."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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

__all__ = [
    "METHODS",
    "Method",
    "as_mask_vars",
    "build",
    "draw_ticket",
    "dropout",
    "find",
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

Settings = Mapping[str, Any]


def _targets(settings: Settings) -> tuple[float, int]:
    return settings.get("target_proportion", 0.75), settings.get("min_kept", 0)


class Method(NamedTuple):
    """Properties of a method that training and evaluation use.

    Attributes:
      factory: its arguments -> `MaskTransform`.
      title: its name in tables and figures; by default made of its name and settings.
      replaces_weight_decay: True if its own prior replaces the L2 penalty.
      in_rounds: True if training, pruning and rewinding are repeated `rounds` times.
      starts_pruned: True if its masks are those of a pruned network, `start.workdir`.
      final_step: settings, durations in steps -> the first step at which its schedules have their final values.
      targets: settings -> the proportion of targets, and how many of each ranking are never targets.
      published_modes: granularity -> the mode in which the paper scored it, where that is not "dense".
    """

    factory: Callable[..., MaskTransform]
    title: str = ""
    replaces_weight_decay: bool = False
    in_rounds: bool = False
    starts_pruned: bool = False
    final_step: Callable[[Settings], int] = lambda settings: 0
    targets: Callable[[Settings], tuple[float, int]] = _targets
    published_modes: Mapping[str, str] = {}

    @property
    def arguments(self) -> Mapping[str, inspect.Parameter]:
        """The factory's arguments, in order."""
        return inspect.signature(self.factory).parameters

    @property
    def durations(self) -> tuple[str, ...]:
        """The arguments that are numbers of steps; a config gives them as durations with a unit."""
        return tuple(name for name, argument in self.arguments.items() if argument.annotation is StepCount)


TARGETS_REMOVED = {"weight": "prune_targets", "unit": "prune_targets"}

METHODS: dict[str, Method] = {
    "none": Method(identity, title="no dropout"),
    # The released code has no test branch for units, so dropout stayed active.
    "targeted": Method(targeted, published_modes={"weight": "prune_targets", "unit": "stochastic"}),
    "ramping": Method(ramping, final_step=lambda settings: 2 * settings["stage"], published_modes=TARGETS_REMOVED),
    "xtreme": Method(
        xtreme,
        final_step=lambda settings: 2 * settings["stage"],
        targets=lambda settings: (1.0, settings["survivors"]),
        published_modes=TARGETS_REMOVED,
    ),
    "random_targets": Method(random_targets),
    "dropout": Method(dropout),
    "random_prune": Method(random_prune),
    "l1": Method(l1),
    "group_lasso": Method(group_lasso),
    "l0": Method(l0),
    "variational": Method(variational, replaces_weight_decay=True, final_step=lambda settings: settings["warmup"]),
    "smallify": Method(smallify),
    # Step `end` makes the last change, and steps count from 0.
    "gradual": Method(gradual, final_step=lambda settings: settings["end"] + 1),
    "lottery": Method(lottery, in_rounds=True),
    "fixed": Method(fixed_masks, starts_pruned=True),
}
"""The methods by their names in configs."""


def find(name: str) -> Method:
    """Find the record of a method.

    Args:
      name: a key of `METHODS`, or the import path of a factory of your own, "package.module:factory". That has the
        record `Method(factory)`, or the one that is its attribute `method`.

    Returns:
      The record.

    Raises:
      UserError: unknown name, or it cannot be imported.

    Example:
      >>> find("gradual").durations
      ('begin', 'end', 'interval')
    """
    found: Any = entry(METHODS, name, "method")
    return found if isinstance(found, Method) else getattr(found, "method", Method(found))


def build(settings: Settings, kernels: Patterns = KERNELS) -> MaskTransform:
    """Make the method that a config names.

    Args:
      settings: `name`, as in `find`, and the factory's own arguments.
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
    factories = {name: method.factory for name, method in METHODS.items()}
    return call_from_table(factories, settings, "method", kernels=kernels)
