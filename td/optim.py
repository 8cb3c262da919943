"""Optimisers and learning-rate schedules of the paper, all from optax."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from td.base import Schedule
from td.errors import UserError, check_at_least, lookup


def _staircase(settings: Mapping[str, Any], steps: int) -> Schedule:
    del steps
    boundaries = {int(boundary): settings["decay"] for boundary in settings["boundaries"]}
    return optax.piecewise_constant_schedule(settings["learning_rate"], boundaries)


def _cosine(settings: Mapping[str, Any], steps: int) -> Schedule:
    return optax.cosine_decay_schedule(settings["learning_rate"], max(steps - settings["warmup"], 1))


def _constant(settings: Mapping[str, Any], steps: int) -> Schedule:
    del steps
    return optax.constant_schedule(settings["learning_rate"])


SCHEDULES: dict[str, Callable[[Mapping[str, Any], int], Schedule]] = {
    "staircase": _staircase,
    "cosine": _cosine,
    "constant": _constant,
}

OPTIMIZERS: dict[str, Callable[[Mapping[str, Any], Schedule], optax.GradientTransformation]] = {
    "sgd": lambda s, rate: optax.sgd(rate, momentum=s["momentum"] or None, nesterov=s["nesterov"]),
    "adam": lambda s, rate: optax.adam(rate, b1=s["b1"], b2=s["b2"]),
}


def learning_rate(settings: Mapping[str, Any], steps: int) -> Schedule:
    """The learning rate as a function of the step: a linear warm-up, then the named schedule.

    Args:
      settings: `schedule` ("staircase", "cosine" or "constant"), `learning_rate`, `warmup` in steps, and for the
        staircase `boundaries` in steps (counted from the run's start) and the factor `decay`.
      steps: the length of the run.

    Returns:
      A function of the step.

    Raises:
      UserError: unknown schedule, or a learning rate that is not positive.

    Example:
      >>> settings = {"schedule": "cosine", "learning_rate": 0.1, "warmup": 10}
      >>> [round(float(learning_rate(settings, 110)(step)), 4) for step in (0, 5, 10, 60, 110)]
      [0.0, 0.05, 0.1, 0.05, 0.0]
    """
    if not settings["learning_rate"] > 0:
        raise UserError(f"optim.learning_rate={settings['learning_rate']} is out of range: give a positive number")
    warmup = settings["warmup"]
    shifted = dict(settings)
    if warmup and "boundaries" in settings:
        shifted["boundaries"] = tuple(boundary - warmup for boundary in settings["boundaries"])
    schedule = lookup(SCHEDULES, settings["schedule"], "learning-rate schedule")(shifted, steps)
    if not warmup:
        return schedule
    rise = optax.linear_schedule(0.0, settings["learning_rate"], warmup)
    return optax.join_schedules([rise, schedule], [warmup])


def build(settings: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Make the optimiser that a config names: clip the global gradient norm, then SGD or Adam, over `(params, gates)`.

    Args:
      settings: `name` ("sgd" or "adam"), `clip_norm` (0 = no clipping), `momentum`, `nesterov`, `b1`, `b2`, `gate_rate`
        (the gates' learning rate as a multiple of the parameters') and what `learning_rate` wants.
      steps: the length of the run.

    Returns:
      An optax gradient transformation.

    Raises:
      UserError: unknown optimiser or schedule.

    Example:
      >>> settings = dict(name="sgd", clip_norm=1.0, momentum=0.9, nesterov=False, gate_rate=1.0,
      ...                 schedule="constant", learning_rate=0.1, warmup=0)
      >>> isinstance(build(settings, steps=10), optax.GradientTransformation)
      True
    """
    optimizer = lookup(OPTIMIZERS, settings["name"], "optimiser")(settings, learning_rate(settings, steps))
    check_at_least("optim.gate_rate", settings["gate_rate"])
    clip = [optax.clip_by_global_norm(settings["clip_norm"])] if settings["clip_norm"] else []
    faster = [optax.masked(optax.scale(settings["gate_rate"]), (False, True))] if settings["gate_rate"] != 1 else []
    return optax.chain(*clip, optimizer, *faster)
