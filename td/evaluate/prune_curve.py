"""The prune curve: accuracy against the share removed, one compile for all rates."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import criteria_from_data, prune
from td.base import Params, RandomKey
from td.criteria import criterion_of
from td.data import Split
from td.errors import check_at_least
from td.evaluate.compacted import Smaller, Variables, compacted, costs
from td.evaluate.options import DEFAULT, OWN, Options, as_trained
from td.evaluate.recalibrate import make_recalibration, statistics_of
from td.evaluate.translate import bleu, run_translate
from td.io.progress import progress
from td.train.experiment import Run
from td.train.score import Score, as_score, on_accelerator, score, stacked_batches, sums_over
from td.train.state import TrainState, eval_params, predict
from td.train.step import make_eval_step, make_losses

LOG = logging.getLogger(__name__)

MEASURE_BATCH = 50
"""Training examples a batch for a criterion that needs data: every example's gradient is in memory at once."""


class Described(NamedTuple):
    """What is left of a network: shares of zero weights and of empty units, and which kernels are empty."""

    sparsity: Array
    dead_units: Array
    empty: dict[str, Array]


View = Callable[[TrainState, Mapping[str, Array], Array, RandomKey], tuple[Params, Described]]
"""`(state, importances, rate, key) -> (params, what is left of them)`."""


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
      parameters: all numbers of the compacted network, statistics included; None where none was asked for, as below.
      flops: its multiplications and additions for one example.
      milliseconds_1: median time of its outputs for one example.
      milliseconds_128: for 128.
      uncompacted_milliseconds_1: the same of the network that was not compacted, timed in the same turns.
      uncompacted_milliseconds_128: likewise.
      compressed_bytes: of its weights as a file, safetensors in zstd.
      deviation: of its outputs from the pruned network's, as a share of the largest.
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
    parameters: int | None = None
    flops: int | None = None
    milliseconds_1: float | None = None
    milliseconds_128: float | None = None
    uncompacted_milliseconds_1: float | None = None
    uncompacted_milliseconds_128: float | None = None
    compressed_bytes: int | None = None
    deviation: float | None = None


def read_row(content: Mapping[str, Any]) -> Row:
    """A row of a file; TypeError or ValueError where it is none."""
    row = Row(**content)
    needed = (row.prune_rate, row.sparsity, row.loss, row.accuracy, row.examples)
    for value in (*needed, *(value for value in row if value is not None)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is not a number")
    if not all(math.isfinite(share) for share in (row.accuracy, row.recalibrated_accuracy or 0.0, row.sparsity)):
        raise ValueError("a share is not finite")
    return row


def rank(run: Run, state: TrainState, options: Options) -> dict[str, Array]:
    """Score every kernel as the method shows it at evaluation; one that is missing is ranked by magnitude."""
    experiment = run.experiment
    if options.criterion == OWN:
        return jax.jit(experiment.transform.scores)(state.params, state.mask_vars)
    if criterion_of(options.criterion).measures not in ("", "draws"):
        check_at_least("criterion_examples", options.criterion_examples, MEASURE_BATCH)
    losses, sample = make_losses(experiment), run.dataset.train.sample_batches(MEASURE_BATCH, options.seed)
    return criteria_from_data.importances(
        options.criterion,
        options.granularity,
        eval_params(experiment, state),
        losses=lambda params, batch: losses(params, state.batch_stats, batch),
        forward=lambda params, batch: predict(experiment, params, state.batch_stats, batch),
        batches=islice(sample, options.criterion_examples // MEASURE_BATCH),
        key=jax.random.key(options.seed),
        kernels=experiment.kernels,
    )


def make_view(run: Run, options: Options) -> View:
    """Build the jitted view of a trained network at a prune rate; the key is for draws in "stochastic" mode."""
    transform, kernels = run.experiment.transform, run.experiment.kernels

    @jax.jit
    def view(state: TrainState, scores: Any, rate: Array, key: RandomKey) -> tuple[Params, Described]:
        shown = eval_params(run.experiment, state)
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

    return view


def intrinsic(run: Run, state: TrainState) -> float:
    """The share of zeros that the method itself has brought about, before anything is pruned."""
    measure = jax.jit(lambda state: prune.sparsity(eval_params(run.experiment, state), run.experiment.kernels).total)
    return float(measure(state))


def make_point(run: Run, state: TrainState, options: Options) -> Callable[[float], tuple[Row, Variables]]:
    """Build the scoring of a trained network at any rate, compiled once, batch by batch; gives the network as well."""
    view, ranked, key = make_view(run, options), rank(run, state, options), jax.random.key(options.seed)
    own, eval_step, split = intrinsic(run, state), make_eval_step(run.experiment), run.dataset.evaluation
    batch_size = min(options.batch_size, run.dataset.train.size)
    recalibrate, translate = None, run_translate(run, options.beams) if options.bleu else None
    if options.recalibrate_batch_norm:
        batches = options.recalibration_batches
        recalibrate = make_recalibration(run, state.batch_stats, batch_size, batches, options.seed)

    def point(rate: float) -> tuple[Row, Variables]:
        traced = jnp.asarray(rate, jnp.float32)
        only = None if options.mode == "stochastic" else view(state, ranked, traced, key)
        seen: list[Described] = []

        def params_of(i: int) -> Params:
            pruned, described = only or view(state, ranked, traced, jax.random.fold_in(key, i))
            if only is None or not seen:
                seen.append(described)
            return pruned

        raw = score(eval_step, params_of, state.batch_stats, split, batch_size)
        described = jax.tree.map(lambda *each: float(np.mean(each)), *jax.device_get(seen))
        statistics = recalibrate(params_of) if recalibrate else state.batch_stats
        again = score(eval_step, params_of, statistics, split, batch_size) if recalibrate else None
        row, network = as_row(rate, described, raw, again, own), params_of(0)
        if translate is not None:
            pairs: Any = split
            row = row._replace(bleu=bleu(translate(network, pairs), pairs.references)[0])
        return row, {"params": network, "batch_stats": statistics}

    return point


def as_row(rate: float, described: Any, raw: Score, again: Score | None, own: float) -> Row:
    """One point of a prune curve, from what was left of the network and its scores as trained and recalibrated."""
    sparsity, dead, empty = described
    names = [path for path, share in empty.items() if share]
    if names:
        LOG.warning("%.4g %% pruned: nothing is left of %s", 100 * rate, ", ".join(names))
    row = Row(float(rate), sparsity, raw.loss, raw.accuracy, raw.examples, intrinsic_sparsity=own)
    row = row._replace(dead_units=dead, empty_layers=round(sum(empty.values())))
    return row if again is None else row._replace(recalibrated_loss=again.loss, recalibrated_accuracy=again.accuracy)


def resident_curve(run: Run, state: TrainState, rates: Sequence[float], options: Options) -> list[Row]:
    """The whole curve as one program over batches that are on the device: for accelerators."""
    view, ranked, key = make_view(run, options), rank(run, state, options), jax.random.key(options.seed)
    own, eval_step = intrinsic(run, state), make_eval_step(run.experiment)
    batch_size = min(options.batch_size, run.dataset.train.size)
    scored, sample = stacked_batches(run.dataset.evaluation, batch_size), None
    if options.recalibrate_batch_norm:
        add_batch, first = statistics_of(run, state.batch_stats, options.recalibration_batches)
        batches = islice(run.dataset.train.sample_batches(batch_size, options.seed), options.recalibration_batches)
        sample = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    @jax.jit
    def curve(state: TrainState, ranked: Any, rates: Array, key: RandomKey, scored: Any, sample: Any) -> Any:
        def point(rate: Array) -> Any:
            once, described = view(state, ranked, rate, key)

            def params_of(number: Array) -> Params:
                if options.mode != "stochastic":
                    return once
                return view(state, ranked, rate, jax.random.fold_in(key, number))[0]

            if options.mode == "stochastic":
                numbers = jnp.arange(len(scored.labels))
                draws = jax.lax.map(lambda i: view(state, ranked, rate, jax.random.fold_in(key, i))[1], numbers)
                described = jax.tree.map(lambda each: jnp.mean(each.astype(jnp.float32), axis=0), draws)
            raw = sums_over(eval_step, params_of, state.batch_stats, scored)
            if sample is None:
                return described, raw, None

            def add(total: Any, numbered: tuple[Array, Any]) -> tuple[Any, None]:
                return add_batch(total, params_of(numbered[0]), numbered[1]), None

            count = len(sample.labels)
            total, _ = jax.lax.scan(add, first, (jnp.arange(count), sample))
            statistics = jax.tree.map(lambda statistic: statistic / count, total)
            return described, raw, sums_over(eval_step, params_of, statistics, scored)

        return jax.lax.map(point, rates)

    found = jax.device_get(curve(state, ranked, jnp.asarray(rates, jnp.float32), key, scored, sample))
    rows = []
    for i, rate in enumerate(rates):
        described, raw, again = jax.tree.map(lambda leaf, i=i: float(leaf[i]), found)
        rows.append(as_row(rate, described, as_score(raw), None if again is None else as_score(again), own))
    return rows


def prune_curve(run: Run, state: TrainState, rates: Sequence[float], options: Options = DEFAULT) -> list[Row]:
    """Prune a trained network at every rate and score it, without fine-tuning."""
    return prune_curves([(run, state)], rates, options)[0]


def prune_curves(
    trained: Sequence[tuple[Run, TrainState]], rates: Sequence[float], options: Options = DEFAULT
) -> list[list[Row]]:
    """The prune curves of several networks; where they are compacted, all are timed together."""
    curves: list[list[Row]] = []
    smaller: list[Smaller] = []
    for run, state in trained:
        rows, compact = _curve(run, state, rates, as_trained(options, run.config))
        curves.append(rows)
        smaller += compact
    if not options.compact:
        return curves
    found = iter(costs(smaller, options.calls))
    return [[row._replace(**next(found)._asdict()) for row in rows] for rows in curves]


def _curve(run: Run, state: TrainState, rates: Sequence[float], options: Options) -> tuple[list[Row], list[Smaller]]:
    resident = on_accelerator(run.dataset.evaluation) and isinstance(run.dataset.train, Split)
    if resident and not options.compact:
        return resident_curve(run, state, rates, options), []
    point, rows, networks = make_point(run, state, options), [], []
    for rate in progress(rates, desc="prune curve", unit="rate"):
        row, network = point(rate)
        rows.append(row)
        networks += [network] if options.compact else []
    return rows, compacted(run, rates, networks, options) if options.compact else []
