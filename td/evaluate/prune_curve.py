"""The prune curve: accuracy against the share removed, one compile for all rates."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import criteria_from_data, prune
from td.base import Params, RandomKey
from td.criteria import CRITERIA
from td.errors import check_at_least, lookup
from td.evaluate.options import DEFAULT, OWN, Options, as_trained
from td.evaluate.recalibrate import make_recalibration
from td.evaluate.translate import bleu, run_translate
from td.io.progress import progress
from td.train.experiment import Run
from td.train.losses import make_losses
from td.train.score import score
from td.train.state import TrainState, at_evaluation, predict
from td.train.step import make_eval_step

LOG = logging.getLogger(__name__)

MEASURE_BATCH = 50
"""Training examples a batch for a criterion that needs data: every example's gradient is in memory at once."""


class Described(NamedTuple):
    """What is left of a network: shares of zero weights and of empty units, and which kernels are empty."""

    sparsity: Array
    dead_units: Array
    empty: dict[str, Array]


View = Callable[[Array, RandomKey], tuple[Params, Described]]


class Row(NamedTuple):
    """One point of a prune curve.

    Attributes:
      prune_rate: the share requested.
      sparsity: the share of zeros measured over all chosen kernels, of the networks that are scored: in
        "stochastic" mode the mean over the draws, here and below.
      loss: mean cross entropy.
      accuracy: share of right answers.
      examples: how many were scored.
      recalibrated_loss: the same after BatchNorm statistics were estimated anew; None where not asked for.
      recalibrated_accuracy: likewise.
      intrinsic_sparsity: the share of zeros before anything is pruned: what the method itself has switched off.
      bleu: of the translated test text, 0 to 100; None where not asked for.
      dead_units: the share of units without any weight left.
      empty_layers: how many kernels have no weight left at all.
    """

    prune_rate: float
    sparsity: float
    loss: float
    accuracy: float
    examples: int
    recalibrated_loss: float | None = None
    recalibrated_accuracy: float | None = None
    intrinsic_sparsity: float | None = None
    bleu: float | None = None
    dead_units: float | None = None
    empty_layers: int | None = None


def rank(run: Run, state: TrainState, options: Options) -> dict[str, Array]:
    """Score every kernel as the method shows it at evaluation; one that is missing is ranked by magnitude."""
    experiment = run.experiment
    if options.criterion == OWN:
        return jax.jit(experiment.transform.scores)(state.params, state.mask_vars)
    if lookup(CRITERIA, options.criterion, "criterion").measures not in ("", "draws"):
        check_at_least("criterion_examples", options.criterion_examples, MEASURE_BATCH)
    losses, sample = make_losses(experiment), run.dataset.train.sample_batches(MEASURE_BATCH, options.seed)
    return criteria_from_data.importances(
        options.criterion,
        options.granularity,
        at_evaluation(experiment, state),
        losses=lambda params, batch: losses(params, state.batch_stats, batch),
        forward=lambda params, batch: predict(experiment, params, state.batch_stats, batch),
        batches=islice(sample, options.criterion_examples // MEASURE_BATCH),
        key=jax.random.key(options.seed),
        kernels=experiment.kernels,
    )


def make_view(run: Run, state: TrainState, options: Options, ranked: Mapping[str, Array]) -> View:
    """Build the jitted `(rate, key) -> (params, what is left of them)`; the key is for draws in "stochastic" mode."""
    transform, kernels = run.experiment.transform, run.experiment.kernels

    @jax.jit
    def view(state: TrainState, scores: Any, rate: Array, key: RandomKey) -> tuple[Params, Described]:
        shown = at_evaluation(run.experiment, state)
        mask = prune.prune_mask(shown, rate, options.granularity, scope=options.scope, kernels=kernels, scores=scores)
        if options.mode == "stochastic":
            stored = prune.apply_mask(state.params, mask)
            pruned, _ = transform.apply(stored, state.mask_vars, key=key, step=state.step)
        else:
            pruned = prune.apply_mask(shown, mask)
        dead = prune.dead_units(pruned, kernels)
        share = jnp.mean(jnp.concatenate([units.ravel() for units in dead.values()]), dtype=jnp.float32)
        empty = {path: jnp.all(units) for path, units in dead.items()}
        return pruned, Described(prune.sparsity(pruned, kernels).total, share, empty)

    return lambda rate, key: view(state, dict(ranked), rate, key)


def intrinsic(run: Run, state: TrainState) -> float:
    """The share of zeros that the method itself has brought about, before anything is pruned."""
    measure = jax.jit(lambda state: prune.sparsity(at_evaluation(run.experiment, state), run.experiment.kernels).total)
    return float(measure(state))


def make_point(run: Run, state: TrainState, options: Options) -> Callable[[float], Row]:
    """Build the scoring of a trained network at any rate, compiled once."""
    view = make_view(run, state, options, rank(run, state, options))
    own, eval_step, split = intrinsic(run, state), make_eval_step(run.experiment), run.dataset.evaluation
    batch_size, key = min(options.batch_size, run.dataset.train.size), jax.random.key(options.seed)
    recalibrate, translate = None, run_translate(run, options.beams) if options.bleu else None
    if options.recalibrate_batch_norm:
        batches = options.recalibration_batches
        recalibrate = make_recalibration(run, state.batch_stats, batch_size, batches, options.seed)

    def point(rate: float) -> Row:
        traced = jnp.asarray(rate, jnp.float32)
        only = None if options.mode == "stochastic" else view(traced, key)
        seen: list[Described] = []

        def params_of(i: int) -> Params:
            pruned, described = only or view(traced, jax.random.fold_in(key, i))
            if only is None or not seen:
                seen.append(described)
            return pruned

        raw = score(eval_step, params_of, state.batch_stats, split, batch_size)
        sparsity, dead, empty = jax.tree.map(lambda *each: float(np.mean(each)), *jax.device_get(seen))
        names = [path for path, share in empty.items() if share]
        if names:
            LOG.warning("%.4g %% pruned: nothing is left of %s", 100 * rate, ", ".join(names))
        row = Row(float(rate), sparsity, raw.loss, raw.accuracy, raw.examples, None, None, own)
        row = row._replace(dead_units=dead, empty_layers=round(sum(empty.values())))
        if recalibrate is not None:
            again = score(eval_step, params_of, recalibrate(params_of), split, batch_size)
            row = row._replace(recalibrated_loss=again.loss, recalibrated_accuracy=again.accuracy)
        if translate is not None:
            pairs: Any = split
            row = row._replace(bleu=bleu(translate(params_of(0), pairs), pairs.references)[0])
        return row

    return point


def prune_curve(run: Run, state: TrainState, rates: Sequence[float], options: Options = DEFAULT) -> list[Row]:
    """Prune a trained network at every rate and score it, without fine-tuning."""
    point = make_point(run, state, as_trained(options, run.config))
    return [point(rate) for rate in progress(rates, desc="prune curve", unit="rate")]
