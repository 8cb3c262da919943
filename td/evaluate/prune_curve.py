"""Prune curves: accuracy against the fraction pruned, one compile for all rates."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import importance, prune
from td.base import Params, RandomKey
from td.data import Split
from td.errors import UserError
from td.evaluate.compacted import Compacted, compacted, costs
from td.evaluate.options import DEFAULT, OWN, Options, as_trained
from td.evaluate.translate import bleu, run_translate
from td.io.progress import progress
from td.kernels import structure_of
from td.rates import allocator, kept_fraction
from td.recalibrate import Update, add_batch
from td.train.experiment import Run
from td.train.score import Loop, as_score, in_program, on_accelerator, on_host, stacked
from td.train.state import TrainState, eval_params, predict
from td.train.step import Metrics, make_eval_step, make_losses

LOG = logging.getLogger(__name__)

Batches = Callable[[], Iterator[Any]]
Variables = dict[str, Any]
"""A network as Flax applies it: `params`, and `batch_stats`, {} without BatchNorm."""


class Left(NamedTuple):
    """A pruned network, measured: sparsity of its kernels, fraction of units without weights, and the empty kernels."""

    sparsity: Any
    dead_units: Any
    empty: Mapping[str, Any]


class Measured(NamedTuple):
    """A point of a prune curve, one entry a batch; in mode "stochastic" each batch sees a network of its own."""

    left: Left
    as_trained: Mapping[str, Any]
    recalibrated: Mapping[str, Any] | None


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


def make_update(run: Run) -> Update:
    """Build `(statistics, (params, batch)) -> statistics` for `td.recalibrate`: no dropout, and no momentum to undo."""
    model, inputs = run.experiment.model, run.experiment.task.inputs
    if not hasattr(model, "batch_norm_momentum"):
        raise UserError("nothing to recalibrate: this model has no BatchNorm, or no attribute `batch_norm_momentum`")
    model = model.clone(**{name: 0.0 for name in ("batch_norm_momentum", "dropout_rate") if hasattr(model, name)})

    def update(statistics: Any, given: tuple[Params, Any]) -> Any:
        params, batch = given
        variables = {"params": params, "batch_stats": statistics}
        return model.apply(variables, *inputs(batch, None), train=True, mutable=["batch_stats"])[1]["batch_stats"]

    return update


def make_point(run: Run, options: Options, loop: Loop) -> Callable[..., tuple[Measured, Variables]]:
    """Build `(state, scores, rate, key, *data) -> (measured, network of the first batch)`.

    `loop` runs over the data on the host, where they are as `data_of` returns them, or, stacked, in a compiled program.
    """
    prune_at, eval_step = make_pruned(run, options), make_eval_step(run.experiment)
    update = make_update(run) if options.recalibrate_batch_norm else None
    drawn, count = options.mode == "stochastic", options.recalibration_batches

    def point(
        state: TrainState, scores: Any, rate: Array, key: RandomKey, scored: Any, sample: Any
    ) -> tuple[Measured, Variables]:
        same = None if drawn else prune_at(state, scores, rate, key)

        def network(number: Any) -> tuple[Params, Left]:
            return same or prune_at(state, scores, rate, jax.random.fold_in(key, number))

        def score(statistics: Any) -> tuple[Mapping[str, Any], Left]:
            def body(_: None, number: Any, batch: Any) -> tuple[None, tuple[Metrics, Left]]:
                params, left = network(number)
                return None, (eval_step(params, statistics, batch), left)

            return loop(body, None, scored)[1]

        statistics, recalibrated = state.batch_stats, None
        as_trained, left = score(statistics)
        if update:

            def add(total: Any, number: Any, batch: Any) -> tuple[Any, None]:
                return add_batch(update, total, (network(number)[0], batch)), None

            total, _ = loop(add, jax.tree.map(jnp.zeros_like, statistics), sample)
            statistics = jax.tree.map(lambda leaf: leaf / count, total)
            recalibrated, _ = score(statistics)
        left = left if drawn else jax.tree.map(lambda leaf: leaf[:1], left)
        return Measured(left, as_trained, recalibrated), {"params": network(0)[0], "batch_stats": statistics}

    return point


def data_of(run: Run, options: Options) -> tuple[Batches, Batches | None]:
    """Return the evaluation split, and the training batches that recalibrate."""
    train, split = run.dataset.train, run.dataset.evaluation
    size, count, seed = min(options.batch_size, train.size), options.recalibration_batches, options.seed
    sample = (lambda: islice(train.sample_batches(size, seed), count)) if options.recalibrate_batch_norm else None
    return partial(split.eval_batches, min(size, split.size)), sample


MEASURE_BATCH = 50
"""Training examples a batch for a criterion that needs data: every example's gradient is in memory at once."""


SENSITIVITY_BATCHES = 4
"""Training batches on which the sensitivity of a layer is measured."""


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


def rank(run: Run, state: TrainState, options: Options) -> dict[str, Array]:
    """Score every kernel as the method evaluates it; kernels without scores are ranked by magnitude."""
    experiment = run.experiment
    if options.criterion == OWN:
        return jax.jit(experiment.transform.scores)(state.params, state.mask_vars)
    size = min(MEASURE_BATCH, options.criterion_examples)
    losses, sample = make_losses(experiment), run.dataset.train.sample_batches(size, options.seed)
    return importance.importances(
        options.criterion,
        options.granularity,
        eval_params(experiment, state),
        losses=lambda params, batch: losses(params, state.batch_stats, batch),
        forward=lambda params, batch: predict(experiment, params, state.batch_stats, batch),
        batches=islice(sample, options.criterion_examples // size),
        key=jax.random.key(options.seed),
        kernels=experiment.kernels,
    )


def intrinsic(run: Run, state: TrainState) -> float:
    """Measure the fraction of zeros before anything is pruned."""
    measure = jax.jit(lambda state: prune.sparsity(eval_params(run.experiment, state), run.experiment.kernels).total)
    return float(measure(state))


def as_row(rate: float, measured: Measured, intrinsic_sparsity: float) -> Row:
    """Average the measurements of a point, and warn of kernels that are empty."""
    sparsity, dead_units, empty = jax.tree.map(lambda values: float(np.mean(values)), measured.left)
    if names := [path for path, fraction in empty.items() if fraction]:
        LOG.warning("%.4g %% pruned: nothing is left of %s", 100 * rate, ", ".join(names))
    recalibrated = () if measured.recalibrated is None else as_score(measured.recalibrated)[:2]
    row = Row(float(rate), sparsity, *as_score(measured.as_trained), *recalibrated)
    row = row._replace(intrinsic_sparsity=intrinsic_sparsity)
    return row._replace(dead_units=dead_units, empty_layers=round(sum(empty.values())))


def make_rates(run: Run, state: TrainState, options: Options) -> Callable[[float], tuple[Any, dict[str, Any]]]:
    """Build `rate -> (rate, or one for each layer, and fields of the row)`."""
    if not options.rates_by:
        return lambda rate: (rate, {})
    structure, params = structure_of(run.experiment.kernels), eval_params(run.experiment, state)
    if structure is None:
        raise UserError("--rates_by needs the network's structure: leave config.kernels at 'traced'")
    eval_step, train = make_eval_step(run.experiment), run.dataset.train
    sample = list(islice(train.sample_batches(min(options.batch_size, train.size), options.seed), SENSITIVITY_BATCHES))

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
    point, data, key = make_point(run, options, on_host), data_of(run, options), jax.random.key(options.seed)
    scores, intrinsic_sparsity = rank(run, state, options), intrinsic(run, state)
    translate = run_translate(run, options.beams) if options.bleu else None
    rates_at = make_rates(run, state, options)

    def scored(rate: float) -> tuple[Row, Variables]:
        rates, budget = rates_at(rate)
        measured, network = point(state, scores, jax.tree.map(jnp.float32, rates), key, *data)
        row = as_row(rate, measured, intrinsic_sparsity)._replace(**budget)
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
    found = jax.device_get(
        curve(state, scores, jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *given), *on_device)
    )
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(rates))]
    rows = [as_row(rate, measured, intrinsic_sparsity) for rate, measured in zip(rates, each, strict=True)]
    return [row._replace(**budget) for row, budget in zip(rows, budgets, strict=True)]


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
        if in_memory and not options.compact:
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
