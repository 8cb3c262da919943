"""What becomes of a method's targets while a network trains: how stable the set is, how large its weights are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from td import masks, prune, tree
from td.io import hosts
from td.kernels import select_kernels
from td.train.state import Experiment, TrainState

PERCENTILES = (10, 50, 90)

Targets = dict[str, Array]


class Telemetry(NamedTuple):
    """Two functions.

    Attributes:
      targets: state -> `{path: bool}`, True for what is ranked lowest, of the kernels' shapes.
      watch: (targets a step ago, state) -> numbers for the log.
    """

    targets: Callable[[TrainState], Targets]
    watch: Callable[[Targets, TrainState], dict[str, float]]


def make_telemetry(experiment: Experiment, mask: Mapping[str, Any], granularity: str) -> Telemetry:
    """Build the functions that watch the lowest-ranked share: the method's own targets, or 75 %."""
    proportion, spare = masks.find(mask["name"]).targets(mask)
    scope, granularity = mask.get("scope", "unit"), mask.get("granularity", granularity)
    kernels = experiment.kernels

    @jax.jit
    def targets(state: TrainState) -> Targets:
        scores = experiment.transform.scores(state.params, state.mask_vars)
        kept = tree.named_leaves(
            prune.prune_mask(
                state.params, proportion, granularity, scope=scope, spare=spare, kernels=kernels, scores=scores
            )
        )
        return {path: ~kept[path] for path in select_kernels(state.params, kernels)}

    def watch(before: Targets, state: TrainState) -> dict[str, float]:
        # On the host: it happens seldom, and a device would compile a sort for it.
        was, now, kernel = hosts.fetch((before, targets(state), select_kernels(state.params, kernels)))
        left = sum(int(np.sum(was[path] & ~now[path])) for path in now)
        inside = np.concatenate([now[path].ravel() for path in now])
        magnitudes = np.concatenate([np.abs(kernel[path]).ravel() for path in now])
        count = sum(int(targets.sum()) for targets in was.values())
        return {"targets/changed": left / max(count, 1)} | quantiles(magnitudes, inside)

    return Telemetry(targets, watch)


def quantiles(magnitudes: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """The tenth, fiftieth and ninetieth percentile of the magnitudes in a set and outside it.

    Example:
      >>> found = quantiles(np.arange(10.0), np.arange(10) < 5)
      >>> found["targets/inside_50"], found["targets/outside_50"]
      (2.0, 7.0)
    """
    named: dict[str, float] = {}
    for name, chosen in (("inside", magnitudes[inside]), ("outside", magnitudes[~inside])):
        values = np.percentile(chosen, PERCENTILES).tolist() if chosen.size else []
        named |= {f"targets/{name}_{percent}": value for percent, value in zip(PERCENTILES, values, strict=False)}
    return named
