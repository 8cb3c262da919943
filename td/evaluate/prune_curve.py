"""Prune curves: accuracy against the fraction pruned, one compile for all rates."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import importance, prune
from td.base import Params
from td.data import Split
from td.errors import UserError
from td.evaluate.compacted import Compacted, compacted, costs
from td.evaluate.options import DEFAULT, OWN, Options, as_trained
from td.evaluate.point import Measured, Variables, data_of, make_point
from td.evaluate.translate import bleu, run_translate
from td.io.progress import progress
from td.kernels import structure_of
from td.rates import allocator, kept_fraction
from td.train.calibrate import calibration_batches, make_reconstruct
from td.train.experiment import Run
from td.train.score import as_score, in_program, on_accelerator, on_host, stacked
from td.train.state import TrainState, eval_params, predict
from td.train.step import make_eval_step, make_losses

LOG = logging.getLogger(__name__)

# Training examples a batch for a criterion that needs data: every example's gradient is in memory at once.
MEASURE_BATCH = 50
SENSITIVITY_BATCHES = 4  # training batches on which the sensitivity of a layer is measured


class Row(NamedTuple):
    """One point of a prune curve. None is a measurement that was not asked for."""

    prune_rate: float  # the fraction to prune, as requested
    sparsity: float  # measured fraction of zeros in the scored kernels; in mode "stochastic" the mean over draws
    loss: float  # mean cross entropy
    accuracy: float  # from 0 to 1
    examples: int  # scored images or tokens
    recalibrated_loss: float | None = None  # after BatchNorm was recalibrated
    recalibrated_accuracy: float | None = None
    intrinsic_sparsity: float | None = None  # fraction of zeros before pruning, which the method itself has made
    bleu: float | None = None  # of the translated test text, 0 to 100
    dead_units: float | None = None  # fraction of units without weights
    empty_layers: int | None = None  # kernels without weights
    parameters: int | None = None  # of the compacted network, statistics included
    flops: int | None = None  # multiplications and additions of the compacted network for one example
    milliseconds_1: float | None = None  # median time of the compacted network for one example
    milliseconds_128: float | None = None  # for 128 examples
    uncompacted_milliseconds_1: float | None = None  # the same of the whole network, timed interleaved
    uncompacted_milliseconds_128: float | None = None
    compressed_bytes: int | None = None  # of the compacted weights as safetensors in zstd
    deviation: float | None = None  # of the compacted network's outputs, relative to the largest output
    budget_asked: float | None = None  # fraction of the FLOPs or parameters to keep
    budget_kept: float | None = None  # what the rates of all layers keep of it
    reconstructed_loss: float | None = None  # after the kept weights were solved again
    reconstructed_accuracy: float | None = None
    reconstructed_recalibrated_loss: float | None = None  # after that and recalibration
    reconstructed_recalibrated_accuracy: float | None = None


def rank(run: Run, state: TrainState, options: Options) -> dict[str, Array]:
    """Score every kernel as the method evaluates it; kernels without scores are ranked by magnitude."""
    experiment = run.experiment
    if options.criterion == OWN:
        return jax.jit(experiment.transform.scores)(state.params, state.mask_vars)
    size = min(MEASURE_BATCH, options.criterion_examples)
    losses, count = make_losses(experiment), options.criterion_examples // size
    return importance.importances(
        options.criterion,
        options.granularity,
        eval_params(experiment, state),
        losses=lambda params, batch: losses(params, state.batch_stats, batch),
        forward=lambda params, batch: predict(experiment, params, state.batch_stats, batch),
        batches=calibration_batches(run.dataset.train, size, count, options.seed),
        key=jax.random.key(options.seed),
        kernels=experiment.kernels,
    )


def intrinsic(run: Run, state: TrainState) -> float:
    """Measure the fraction of zeros before anything is pruned."""
    measure = jax.jit(lambda state: prune.sparsity(eval_params(run.experiment, state), run.experiment.kernels).total)
    return float(measure(state))


def as_row(rate: float, measured: Measured, **known: Any) -> Row:
    """Average the measurements of a point, and warn of kernels that are empty."""
    sparsity, dead_units, empty = jax.tree.map(lambda values: float(np.mean(values)), measured.left)
    if names := [path for path, fraction in empty.items() if fraction]:
        LOG.warning("%.4g %% pruned: nothing is left of %s", 100 * rate, ", ".join(names))
    known |= {"examples": as_score(measured.scores[""]).examples}
    for view, sums in measured.scores.items():
        known |= {f"{view}{name}": value for name, value in zip(("loss", "accuracy"), as_score(sums), strict=False)}
    return Row(float(rate), sparsity, dead_units=dead_units, empty_layers=round(sum(empty.values())), **known)


def make_rates(run: Run, state: TrainState, options: Options) -> Callable[[float], tuple[Any, dict[str, Any]]]:
    """Build `rate -> (rate, or one for each layer, and fields of the row)`."""
    if not options.rates_by:
        return lambda rate: (rate, {})
    structure, params = structure_of(run.experiment.kernels), eval_params(run.experiment, state)
    if structure is None:
        raise UserError("--rates_by needs the network's structure: leave config.kernels at 'traced'")
    eval_step, train = make_eval_step(run.experiment), run.dataset.train
    sample = list(calibration_batches(train, options.batch_size, SENSITIVITY_BATCHES, options.seed))

    def score(params: Params) -> float:
        sums = [eval_step(params, state.batch_stats, batch) for batch in sample]
        return float(sum(each["correct"] for each in sums) / sum(each["examples"] for each in sums))

    words = {"budget": options.budget, "granularity": options.granularity}
    allocated = allocator(structure, params, options.rates_by, score=score, **words)

    def at(rate: float) -> tuple[Any, dict[str, Any]]:
        rates = allocated(1 - rate)
        kept = kept_fraction(structure, params, rates, options.budget, options.granularity)
        return rates, {"budget_asked": 1 - rate, "budget_kept": kept}

    return at


def scored_by_batch(run: Run, state: TrainState, options: Options) -> Callable[[float], tuple[Row, Variables]]:
    """Build `rate -> (row, network)`, compiled once."""
    if options.reconstruct and state.batch_stats:
        options = options._replace(recalibrate_batch_norm=True)
    sample = run.dataset.train, options.batch_size, options.recalibration_batches, options.seed
    reconstruct = make_reconstruct(run, state, calibration_batches(*sample)) if options.reconstruct else None
    point, data = make_point(run, options, on_host, reconstruct), data_of(run, options)
    scores, intrinsic_sparsity, key = rank(run, state, options), intrinsic(run, state), jax.random.key(options.seed)
    translate = run_translate(run, options.beams) if options.bleu else None
    rates_at = make_rates(run, state, options)

    def scored(rate: float) -> tuple[Row, Variables]:
        rates, budget = rates_at(rate)
        measured, network = point(state, scores, jax.tree.map(jnp.float32, rates), key, *data)
        row = as_row(rate, measured, intrinsic_sparsity=intrinsic_sparsity, **budget)
        if translate:
            pairs: Any = run.dataset.evaluation
            row = row._replace(bleu=bleu(translate(network["params"], pairs), pairs.references)[0])
        return row, network

    return scored


def scored_in_one_program(run: Run, state: TrainState, rates: Sequence[float], options: Options) -> list[Row]:
    """Score all rates in one program, with all batches on the device: for accelerators."""
    point, data, key = make_point(run, options, in_program), data_of(run, options), jax.random.key(options.seed)
    on_device = [batches and stacked(batches()) for batches in data]
    scores, intrinsic_sparsity = rank(run, state, options), intrinsic(run, state)

    @jax.jit
    def curve(state: TrainState, scores: Any, rates: Any, *data: Any) -> Measured:
        return jax.lax.map(lambda rate: point(state, scores, rate, key, *data)[0], rates)

    given, budgets = zip(*map(make_rates(run, state, options), rates), strict=True)
    on_layers = jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *given)
    found = jax.device_get(curve(state, scores, on_layers, *on_device))
    return [
        as_row(rate, jax.tree.map(lambda leaf, i=i: leaf[i], found), intrinsic_sparsity=intrinsic_sparsity, **budget)
        for i, (rate, budget) in enumerate(zip(rates, budgets, strict=True))
    ]


def prune_curve(run: Run, state: TrainState, rates: Sequence[float], options: Options = DEFAULT) -> list[Row]:
    """Prune a trained network at every rate and score it, without fine-tuning."""
    return prune_curves([(run, state)], rates, options)[0]


def prune_curves(
    trained: Sequence[tuple[Run, TrainState]], rates: Sequence[float], options: Options = DEFAULT
) -> list[list[Row]]:
    """Compute the prune curves of several networks; compacted ones are timed together, interleaved."""
    curves: list[list[Row]] = []
    smaller: list[Compacted] = []
    for run, state in trained:
        chosen = as_trained(options, run.config)
        in_memory = on_accelerator(run.dataset.evaluation) and isinstance(run.dataset.train, Split)
        if in_memory and not options.compact and not options.reconstruct:
            curves.append(scored_in_one_program(run, state, rates, chosen))
            continue
        scored, networks = scored_by_batch(run, state, chosen), []
        curves.append([])
        for rate in progress(rates, desc="prune curve", unit="rate"):
            row, network = scored(rate)
            curves[-1].append(row)
            networks += [network] if options.compact else []
        smaller += compacted(run, rates, networks, chosen.round_to)
    if not options.compact:
        return curves
    found = iter(costs(smaller, options.timing_repeats))
    return [[row._replace(**next(found)) for row in rows] for rows in curves]
