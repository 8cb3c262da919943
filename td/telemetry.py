"""What becomes of a method's targets while a network trains: how stable the set is, how large its weights are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import prune, tree
from td.step import Experiment, TrainState

PROPORTION = 0.75
"""What counts as targets where a method has none of its own."""

Targets = dict[str, Array]


class Telemetry(NamedTuple):
    """Two jitted functions.

    Attributes:
      targets: state -> `{path: bool}`, True for what is ranked lowest, of the kernels' shapes.
      watch: (targets a step ago, state) -> scalars for the log.
    """

    targets: Callable[[TrainState], Targets]
    watch: Callable[[Targets, TrainState], dict[str, Array]]


def make_telemetry(experiment: Experiment, mask: Mapping[str, Any], granularity: str) -> Telemetry:
    """Build the functions that watch the lowest-ranked share: the method's own target proportion, or 75 %.

    Args:
      experiment: for method and kernels.
      mask: the method's section of the config.
      granularity: for a method that has none of its own.

    Returns:
      The `Telemetry`.
    """
    proportion = mask.get("target_proportion", PROPORTION)
    granularity = mask.get("granularity", granularity)
    kernels = experiment.kernels

    @jax.jit
    def targets(state: TrainState) -> Targets:
        scores = experiment.transform.scores(state.params, state.mask_vars)
        mask = prune.prune_mask(state.params, proportion, granularity, kernels=kernels, scores=scores)
        kept = dict(zip(tree.paths(mask), jax.tree.leaves(mask), strict=True))
        return {path: ~kept[path] for path in tree.select_kernels(state.params, kernels)}

    @jax.jit
    def watch(before: Targets, state: TrainState) -> dict[str, Array]:
        now, chosen = targets(state), tree.select_kernels(state.params, kernels)
        left = sum(jnp.sum(before[path] & ~now[path], dtype=jnp.float32) for path in now)
        count = sum(jnp.sum(before[path], dtype=jnp.float32) for path in now)
        inside = jnp.concatenate([now[path].ravel() for path in now])
        magnitudes = jnp.concatenate([jnp.abs(chosen[path]).ravel() for path in now])
        return {"targets/changed": left / jnp.maximum(count, 1)} | quantiles(magnitudes, inside)

    return Telemetry(targets, watch)


def quantiles(magnitudes: Array, inside: Array) -> dict[str, Array]:
    """The tenth, fiftieth and ninetieth percentile of the magnitudes in a set and outside it.

    Args:
      magnitudes: `[n]`.
      inside: bool `[n]`.

    Returns:
      Scalars, named by set and percentile; not a number where a set is empty.

    Example:
      >>> found = quantiles(jnp.arange(10.0), jnp.arange(10) < 5)
      >>> float(found["targets/inside_50"]), float(found["targets/outside_50"])
      (2.0, 7.0)
    """
    shares = jnp.array([0.1, 0.5, 0.9])
    named: dict[str, Array] = {}
    for name, chosen in (("inside", inside), ("outside", ~inside)):
        values = jnp.nanquantile(jnp.where(chosen, magnitudes, jnp.nan), shares)
        named |= {f"targets/{name}_{percent}": value for percent, value in zip((10, 50, 90), values, strict=True)}
    return named
