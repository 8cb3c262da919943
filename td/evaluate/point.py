"""One point of a prune curve: a network, pruned, in every view that was asked for."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import prune
from td.base import Params, RandomKey
from td.evaluate.options import Options
from td.recalibrate import add_batch
from td.train.calibrate import Reconstruct, calibration_batches, make_update
from td.train.experiment import Run
from td.train.score import Loop
from td.train.state import TrainState, eval_params
from td.train.step import Metrics, make_eval_step

Batches = Callable[[], Iterator[Any]]
Variables = dict[str, Any]  # a network as Flax applies it: `params`, and `batch_stats`, {} without BatchNorm


class Left(NamedTuple):
    """A pruned network, measured: sparsity of its kernels, fraction of units without weights, and the empty kernels."""

    sparsity: Any
    dead_units: Any
    empty: Mapping[str, Any]


class Measured(NamedTuple):
    """A point of a prune curve, one entry a batch; in mode "stochastic" each batch sees a network of its own."""

    left: Left
    scores: dict[str, Mapping[str, Any]]  # by view: "" as trained, "recalibrated_", "reconstructed_" and both


def make_pruned(run: Run, options: Options) -> Callable[..., tuple[Params, Left]]:
    """Build `(state, scores, rate, key) -> (pruned parameters, what is left)`; a key draws in mode "stochastic"."""
    transform, kernels = run.experiment.transform, run.experiment.kernels

    @jax.jit
    def pruned(state: TrainState, scores: Any, rate: Array, key: RandomKey) -> tuple[Params, Left]:
        params = eval_params(run.experiment, state)
        mask = prune.prune_mask(params, rate, options.granularity, scope=options.scope, kernels=kernels, scores=scores)
        if options.mode == "stochastic":
            stored = prune.apply_mask(state.params, mask)
            params, _ = transform.apply(stored, state.mask_vars, key=key, step=state.step)
        else:
            params = prune.apply_mask(params, mask)
        dead = prune.dead_units(params, kernels)
        fraction = jnp.mean(jnp.concatenate([units.ravel() for units in dead.values()]), dtype=jnp.float32)
        empty = {path: jnp.all(units) for path, units in dead.items()}
        return params, Left(prune.sparsity(params, kernels).total, fraction, empty)

    return pruned


def make_point(
    run: Run, options: Options, loop: Loop, reconstruct: Reconstruct | None = None
) -> Callable[..., tuple[Measured, Variables]]:
    """Build `(state, scores, rate, key, *data) -> (measured, first batch's network)`, data as `loop` takes them."""
    prune_at, eval_step = make_pruned(run, options), make_eval_step(run.experiment)
    update = make_update(run) if options.recalibrate_batch_norm else None
    drawn, count = options.mode == "stochastic", options.recalibration_batches

    def point(
        state: TrainState, scores: Any, rate: Array, key: RandomKey, scored: Any, sample: Any
    ) -> tuple[Measured, Variables]:
        same = None if drawn else prune_at(state, scores, rate, key)
        found: dict[str, Any] = {}

        def network(number: Any) -> tuple[Params, Left]:
            return same or prune_at(state, scores, rate, jax.random.fold_in(key, number))

        def score(statistics: Any) -> tuple[Mapping[str, Any], Left]:
            def body(_: None, number: Any, batch: Any) -> tuple[None, tuple[Metrics, Left]]:
                params, left = network(number)
                return None, (eval_step(params, statistics, batch), left)

            return loop(body, None, scored)[1]

        def add(total: Any, number: Any, batch: Any) -> tuple[Any, None]:
            assert update is not None
            return add_batch(update, total, (network(number)[0], batch)), None

        def views(statistics: Any, prefix: str) -> tuple[Any, Left]:
            """Score with some statistics, then recalibrated."""
            found[prefix], left = score(statistics)
            if update:
                total, _ = loop(add, jax.tree.map(jnp.zeros_like, statistics), sample)
                statistics = jax.tree.map(lambda leaf: leaf / count, total)
                found[f"{prefix}recalibrated_"], _ = score(statistics)
            return statistics, left

        statistics, left = views(state.batch_stats, "")
        left = left if drawn else jax.tree.map(lambda leaf: leaf[:1], left)
        if reconstruct and same:
            params, statistics = reconstruct(same[0])
            same = params, same[1]
            views(statistics, "reconstructed_")
        return Measured(left, found), {"params": network(0)[0], "batch_stats": statistics}

    return point


def data_of(run: Run, options: Options) -> tuple[Batches, Batches | None]:
    """Return the evaluation split, and the training batches that calibrate."""
    train, split, size = run.dataset.train, run.dataset.evaluation, options.batch_size
    scored = partial(split.eval_batches, min(size, train.size, split.size))
    drawn = partial(calibration_batches, train, size, options.recalibration_batches, options.seed)
    return scored, drawn if options.recalibrate_batch_norm else None
