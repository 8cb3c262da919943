"""Telemetry of a method's targets while a network trains: how stable the set is, how large its weights are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from td import _tree, masks, prune
from td.io import hosts
from td.kernels import select_kernels
from td.train.state import Experiment, TrainState

PERCENTILES = (10, 50, 90)

Targets = dict[str, Array]


class Telemetry(NamedTuple):
    """Functions that find the targets and compare them with those of a step before."""

    targets: Callable[[TrainState], Targets]  # state -> `{path: bool}`, True where ranked lowest, of kernels' shapes
    watch: Callable[[Targets, TrainState], dict[str, float]]  # (targets a step ago, state) -> numbers for the log


def make_telemetry(experiment: Experiment, mask: Mapping[str, Any], granularity: str) -> Telemetry:
    """Build the functions that watch the lowest-ranked share: the method's own targets, or 75 %."""
    proportion, min_kept = masks.find(mask["name"]).targets(mask)
    scope, granularity = mask.get("scope", "unit"), mask.get("granularity", granularity)
    kernels = experiment.kernels

    @jax.jit
    def targets(state: TrainState) -> Targets:
        scores = experiment.transform.scores(state.params, state.mask_vars)
        kept = prune.prune_mask(
            state.params, proportion, granularity, scope=scope, min_kept=min_kept, kernels=kernels, scores=scores
        )
        named = _tree.named_leaves(kept)
        return {path: ~named[path] for path in select_kernels(state.params, kernels)}

    def watch(before: Targets, state: TrainState) -> dict[str, float]:
        # On the host: it happens seldom, and a device would compile a sort for it.
        trees = hosts.fetch((before, targets(state), select_kernels(state.params, kernels)))
        was, now, kernel = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in trees)
        found = {"targets/changed": int(np.sum(was & ~now)) / max(int(np.sum(was)), 1)}
        for name, chosen in (("inside", np.abs(kernel[now])), ("outside", np.abs(kernel[~now]))):
            for percent in PERCENTILES if chosen.size else ():
                found[f"targets/{name}_{percent}"] = float(np.percentile(chosen, percent))
        return found

    return Telemetry(targets, watch)
