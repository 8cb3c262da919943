"""The prune curve: accuracy against the share removed, one compile for all rates."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import measure, prune
from td.base import Params, RandomKey
from td.criteria import CRITERIA
from td.errors import UserError, check_at_least, check_choice, lookup
from td.evaluate import score
from td.experiment import Run
from td.progress import progress
from td.scopes import check_scope
from td.step import TrainState, make_eval_step, make_losses
from td.translate import Translate, bleu

LOG = logging.getLogger(__name__)

MODES = ("dense", "prune_targets", "stochastic")
"""How the trained network is scored: whole, without its targets, or with dropout still active."""

MEASURE_BATCH = 50
"""Training examples a batch for a criterion that needs data: every example's gradient is held at once."""

OWN = "own"
"""The criterion of the method itself: its scores where it has any, else magnitude."""


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
      sparsity: the share of zeros measured over all prunable kernels, of the networks that are scored: in
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


def rank(run: Run, granularity: str, criterion: str = OWN, examples: int = 1000, seed: int = 0) -> dict[str, Array]:
    """Score every kernel of a trained network, as the method shows it at evaluation.

    Args:
      run: a trained run.
      granularity: "weight" or "unit".
      criterion: "own", or a key of `td.criteria.CRITERIA`.
      examples: how many training examples a criterion that needs data is measured on, in whole batches of 50.
      seed: of the order of visits, and of the random criterion.

    Returns:
      `{path: importances}`; a kernel that is not there is ranked by magnitude.

    Raises:
      UserError: an unknown word or a count out of range.
    """
    experiment, state = run.experiment, run.state
    model, transform, task = experiment.model, experiment.transform, experiment.task
    if criterion == OWN:
        return jax.jit(transform.scores)(state.params, state.mask_vars)
    if lookup(CRITERIA, criterion, "criterion").measures not in ("", "draws"):
        check_at_least("criterion_examples", examples, MEASURE_BATCH)
    shown, _ = transform.apply(state.params, state.mask_vars, key=None, step=state.step)

    losses = make_losses(model, task)

    def forward(params: Params, batch: Any) -> Array:
        return model.apply({"params": params, "batch_stats": state.batch_stats}, *task.inputs(batch, None))

    batches = islice(run.dataset.train.sample_batches(MEASURE_BATCH, seed), examples // MEASURE_BATCH)
    return measure.importances(
        criterion,
        granularity,
        shown,
        losses=lambda params, batch: losses(params, state.batch_stats, batch),
        forward=forward,
        batches=batches,
        key=jax.random.key(seed),
        kernels=run.experiment.kernels,
    )


def make_view(
    run: Run, granularity: str, mode: str, scope: str = "unit", scores: Mapping[str, Array] | None = None
) -> View:
    """Build the function from a prune rate to the network that is scored.

    Args:
      run: a trained run.
      granularity: "weight" or "unit".
      mode: one of `MODES`. For "prune_targets" the run's method must have been built so.
      scope: where ranking happens, as in `td.prune_mask`.
      scores: importances, as `rank` gives them; None: the method's own.

    Returns:
      A jitted `(rate, key) -> (params, what is left of them)`; the key matters in "stochastic" mode only.
    """
    transform, kernels = run.experiment.transform, run.experiment.kernels
    ranked = dict(rank(run, granularity) if scores is None else scores)

    @jax.jit
    def view(state: TrainState, scores: Any, rate: Array, key: RandomKey) -> tuple[Params, Described]:
        shown, _ = transform.apply(state.params, state.mask_vars, key=None, step=state.step)
        mask = prune.prune_mask(shown, rate, granularity, scope=scope, kernels=kernels, scores=scores)
        if mode == "stochastic":
            stored = prune.apply_mask(state.params, mask)
            pruned, _ = transform.apply(stored, state.mask_vars, key=key, step=state.step)
        else:
            pruned = prune.apply_mask(shown, mask)
        dead = prune.dead_units(pruned, kernels)
        share = jnp.mean(jnp.concatenate([units.ravel() for units in dead.values()]), dtype=jnp.float32)
        empty = {path: jnp.all(units) for path, units in dead.items()}
        return pruned, Described(prune.sparsity(pruned, kernels).total, share, empty)

    return lambda rate, key: view(run.state, ranked, rate, key)


def intrinsic(run: Run) -> float:
    """The share of zeros that the method itself has brought about, before anything is pruned."""

    @jax.jit
    def measure(state: TrainState) -> Array:
        transform, kernels = run.experiment.transform, run.experiment.kernels
        vars_, step = state.mask_vars, state.step
        return prune.sparsity(state.params, kernels, transform=transform, mask_vars=vars_, step=step).total

    return float(measure(run.state))


def make_recalibration(run: Run, batch_size: int, batches: int, seed: int) -> Callable[[Callable[[int], Params]], Any]:
    """Build the function that estimates BatchNorm statistics anew for given parameters. No weight changes.

    The statistics become the plain mean of those of `batches` training batches, not augmented.

    Args:
      run: a trained run.
      batch_size: examples a batch.
      batches: how many training batches.
      seed: of the order of visits.

    Returns:
      `(batch number -> params) -> batch_stats`.

    Raises:
      UserError: the model has no such statistics, or the count is below 1.
    """
    if not run.state.batch_stats:
        raise UserError("nothing to recalibrate: this model has no BatchNorm statistics")
    if batches < 1:
        raise UserError(f"recalibration_batches={batches} is out of range: give at least 1")
    # With momentum 0 the "running" statistics after one batch are that batch's own.
    without = {"dropout_rate": 0.0} if hasattr(run.experiment.model, "dropout_rate") else {}
    model, inputs = run.experiment.model.clone(batch_norm_momentum=0.0, **without), run.experiment.task.inputs

    @jax.jit
    def add_batch(total: Any, params: Params, batch: Any) -> Any:
        variables = {"params": params, "batch_stats": run.state.batch_stats}
        _, updated = model.apply(variables, *inputs(batch, None), train=True, mutable=["batch_stats"])
        return jax.tree.map(jnp.add, total, updated["batch_stats"])

    def recalibrate(params_of: Callable[[int], Params]) -> Any:
        total = jax.tree.map(jnp.zeros_like, run.state.batch_stats)
        sample = run.dataset.train.sample_batches(batch_size, seed)
        for i, batch in enumerate(islice(sample, batches)):
            total = add_batch(total, params_of(i), batch)
        return jax.tree.map(lambda statistic: statistic / batches, total)

    return recalibrate


class Options(NamedTuple):
    """How a trained network is pruned and scored.

    Attributes:
      granularity: "weight" or "unit".
      mode: one of `MODES`.
      criterion: "own", or a key of `td.criteria.CRITERIA`.
      scope: where ranking happens, as in `td.prune_mask`.
      criterion_examples: how many training examples a criterion that needs data is measured on.
      batch_size: examples a batch, here and for recalibration.
      recalibration_batches: 0 leaves BatchNorm statistics as trained; otherwise every rate is scored again with
        statistics estimated from so many training batches.
      translate: from `make_translate`; every rate is scored by BLEU, too.
      seed: of the draws in "stochastic" mode, of the random criterion and of the order of training examples.
    """

    granularity: str = "weight"
    mode: str = "dense"
    criterion: str = OWN
    scope: str = "unit"
    criterion_examples: int = 1000
    batch_size: int = 500
    recalibration_batches: int = 0
    translate: Translate | None = None
    seed: int = 0


def make_point(run: Run, options: Options) -> Callable[[float], Row]:
    """Build the scoring of a trained network at any rate, compiled once.

    Raises:
      UserError: a word or count out of range.
    """
    granularity, mode, seed = options.granularity, options.mode, options.seed
    check_choice("mode", mode, MODES)
    check_scope(options.scope, granularity)
    ranked = rank(run, granularity, options.criterion, options.criterion_examples, seed)
    view = make_view(run, granularity, mode, options.scope, ranked)
    own = intrinsic(run)
    eval_step = make_eval_step(run.experiment.model, run.experiment.task)
    batch_size = min(options.batch_size, run.dataset.train.size)
    batches, translate = options.recalibration_batches, options.translate
    recalibrate = make_recalibration(run, batch_size, batches, seed) if batches else None
    key = jax.random.key(seed)

    def point(rate: float) -> Row:
        traced = jnp.asarray(rate, jnp.float32)
        only = None if mode == "stochastic" else view(traced, key)
        seen: list[Described] = []

        def params_of(i: int) -> Params:
            pruned, described = only or view(traced, jax.random.fold_in(key, i))
            if only is None or not seen:
                seen.append(described)
            return pruned

        raw = score(eval_step, params_of, run.state.batch_stats, run.dataset.evaluation, batch_size)
        sparsity, dead, empty = jax.tree.map(lambda *each: float(np.mean(each)), *jax.device_get(seen))
        names = [path for path, share in empty.items() if share]
        if names:
            LOG.warning("%.4g %% pruned: nothing is left of %s", 100 * rate, ", ".join(names))
        row = Row(float(rate), sparsity, raw.loss, raw.accuracy, raw.examples, None, None, own)
        row = row._replace(dead_units=dead, empty_layers=round(sum(empty.values())))
        if recalibrate is not None:
            statistics = recalibrate(params_of)
            again = score(eval_step, params_of, statistics, run.dataset.evaluation, batch_size)
            row = row._replace(recalibrated_loss=again.loss, recalibrated_accuracy=again.accuracy)
        if translate is not None:
            split: Any = run.dataset.evaluation
            row = row._replace(bleu=bleu(translate(params_of(0), split), split.references)[0])
        return row

    return point


def prune_curve(run: Run, rates: Sequence[float], **options: Any) -> list[Row]:
    """Prune a trained network at every rate and score it, without fine-tuning.

    Args:
      run: a trained run.
      rates: shares to remove, each in [0, 1].
      **options: of `Options`.

    Returns:
      One `Row` a rate, in the order given.

    Raises:
      UserError: a rate, word or count out of range.
    """
    point = make_point(run, Options(**options))
    return [point(rate) for rate in progress(rates, desc="prune curve", unit="rate")]
