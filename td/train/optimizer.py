"""Optimisers and learning-rate schedules of the paper, all from optax."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from td.base import Schedule
from td.errors import lookup
from td.train.totals import clip_by_norm


def _staircase(settings: Mapping[str, Any], _: int) -> Schedule:
    counted = Counter(int(boundary) - settings["warmup"] for boundary in settings["boundaries"])
    falls = {boundary: settings["decay"] ** times for boundary, times in counted.items()}
    return optax.piecewise_constant_schedule(settings["learning_rate"], falls)


def _inverse_sqrt(settings: Mapping[str, Any], _: int) -> Schedule:
    warmup = max(settings["warmup"], 1)
    return lambda count: settings["learning_rate"] * (warmup / (warmup + jnp.maximum(count, 0))) ** 0.5


SCHEDULES: dict[str, Callable[[Mapping[str, Any], int], Schedule]] = {
    "staircase": _staircase,
    "cosine": lambda s, steps: optax.cosine_decay_schedule(s["learning_rate"], max(steps - s["warmup"], 1)),
    "constant": lambda s, steps: optax.constant_schedule(s["learning_rate"]),
    "inverse_sqrt": _inverse_sqrt,
}
"""`(settings, steps of the run) -> schedule`, counted from the end of the warm-up."""

DURATIONS = ("warmup", "boundaries", "begin")
"""The settings of an optimiser that are durations; all count batches, not updates."""

# Adam: Kingma and Ba 2015; Adafactor: Shazeer and Stern 2018.
OPTIMIZERS: dict[str, Callable[[Mapping[str, Any], Schedule], optax.GradientTransformation]] = {
    "sgd": lambda s, rate: optax.sgd(rate, momentum=s["momentum"] or None, nesterov=s["nesterov"]),
    "adam": lambda s, rate: optax.adam(rate, b1=s["b1"], b2=s["b2"]),
    "adafactor": lambda s, rate: optax.adafactor(rate, momentum=s["momentum"] or None, clipping_threshold=None),
}


def make_learning_rate(settings: Mapping[str, Any], steps: int) -> Schedule:
    """Make the learning rate as a function of the step: a linear warm-up, then the named schedule.

    `learning_rate` is the highest; a staircase multiplies by `decay` at its `boundaries`, counted from the run's start;
    "inverse_sqrt" falls as `sqrt(warmup / step)`. The last part of a longer schedule starts at `begin`.
    """
    begin, warmup = settings.get("begin", 0), settings["warmup"]
    schedule = lookup(SCHEDULES, settings["schedule"], "learning-rate schedule")(settings, begin + steps)
    if warmup:
        rise = optax.linear_schedule(0.0, settings["learning_rate"], warmup)
        schedule = optax.join_schedules([rise, schedule], [warmup])
    return (lambda step: schedule(begin + step)) if begin else schedule


def make_optimizer(settings: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Make the optimiser that a config names, over `(params, gates)`: accumulate, clip, then SGD, Adam or Adafactor."""
    schedule, every = make_learning_rate(settings, steps), settings["accumulate"]
    multiplier = settings["gate_lr_multiplier"]
    rate = schedule if every == 1 else lambda updates: schedule(updates * every)
    optimizer = lookup(OPTIMIZERS, settings["name"], "optimiser")(settings, rate)
    clip = [clip_by_norm(settings["clip_norm"])] if settings["clip_norm"] else []
    clip += [optax.clip_by_block_rms(settings["clip_rms"])] if settings["clip_rms"] else []
    faster = [optax.masked(optax.scale(multiplier), (False, True))] if multiplier != 1 else []
    whole = optax.chain(*clip, optimizer, *faster)
    return whole if every == 1 else optax.MultiSteps(whole, every).gradient_transformation()
