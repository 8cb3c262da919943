"""The prune curve: accuracy against the share removed, one compile for all rates."""

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import prune
from td.base import Params, RandomKey
from td.data import Batch, standardize, train_batch
from td.errors import UserError, check_choice, check_share
from td.evaluate import score
from td.experiment import Run
from td.progress import progress
from td.step import TrainState, make_eval_step

MODES = ("dense", "prune_targets", "stochastic")
"""How the trained network is scored: whole, without its targets, or with dropout still active."""

View = Callable[[Array, RandomKey], tuple[Params, Array]]


class Row(NamedTuple):
    """One point of a prune curve.

    Attributes:
      prune_rate: the share requested.
      sparsity: the share of zeros measured over all prunable kernels.
      loss: mean cross entropy.
      accuracy: share of right answers.
      examples: how many were scored.
      recalibrated_loss: the same after BatchNorm statistics were estimated anew; None where not asked for.
      recalibrated_accuracy: likewise.
    """

    prune_rate: float
    sparsity: float
    loss: float
    accuracy: float
    examples: int
    recalibrated_loss: float | None = None
    recalibrated_accuracy: float | None = None


def parse_rates(text: str) -> list[float]:
    """Read prune rates: `first:last:step`, both ends included, or a list with commas.

    Args:
      text: as "0:0.9:0.1" or "0.5,0.9".

    Returns:
      The rates, each the decimal number that was written.

    Raises:
      UserError: malformed, empty, or a rate outside [0, 1].

    Example:
      >>> parse_rates("0:0.3:0.1")
      [0.0, 0.1, 0.2, 0.3]
      >>> parse_rates("0-0.9")
      Traceback (most recent call last):
        ...
      td.errors.UserError: rates '0-0.9' are malformed: write first:last:step, as 0:0.9:0.1, or a list, as 0.5,0.9
    """
    try:
        if ":" in text:
            first, last, step = (Decimal(part) for part in text.split(":"))
            rates = [float(first + i * step) for i in range(int((last - first) / step) + 1)]
        else:
            rates = [float(Decimal(part)) for part in text.split(",")]
    except (ValueError, ArithmeticError, InvalidOperation):
        rates = []
    if not rates:
        raise UserError(
            f"rates {text!r} are malformed: write first:last:step, as 0:0.9:0.1, or a list, as 0.5,0.9"
        ) from None
    for rate in rates:
        check_share("prune rate", rate)
    return rates


def make_view(run: Run, granularity: str, mode: str) -> View:
    """Build the function from a prune rate to the network that is scored.

    Args:
      run: a trained run.
      granularity: "weight" or "unit".
      mode: one of `MODES`. For "prune_targets" the run's method must have been built so.

    Returns:
      A jitted `(rate, key) -> (params, measured sparsity)`; the key matters in "stochastic" mode only.
    """
    transform, kernels = run.experiment.transform, run.experiment.kernels

    @jax.jit
    def view(state: TrainState, rate: Array, key: RandomKey) -> tuple[Params, Array]:
        shown, mask_vars = transform.apply(state.params, state.mask_vars, key=None, step=state.step)
        scores = transform.scores(state.params, state.mask_vars)
        pruned = prune.apply_mask(shown, prune.prune_mask(shown, rate, granularity, kernels=kernels, scores=scores))
        if mode == "stochastic":
            pruned, _ = transform.apply(pruned, mask_vars, key=key, step=state.step)
        return pruned, prune.sparsity(pruned, kernels).total

    return lambda rate, key: view(run.state, rate, key)


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
    model = run.experiment.model.clone(batch_norm_momentum=0.0)

    @jax.jit
    def add_batch(total: Any, params: Params, batch: Batch) -> Any:
        variables = {"params": params, "batch_stats": run.state.batch_stats}
        _, updated = model.apply(variables, standardize(batch.images), train=True, mutable=["batch_stats"])
        return jax.tree.map(jnp.add, total, updated["batch_stats"])

    def recalibrate(params_of: Callable[[int], Params]) -> Any:
        total = jax.tree.map(jnp.zeros_like, run.state.batch_stats)
        for i in range(batches):
            total = add_batch(total, params_of(i), train_batch(run.dataset.train, i, batch_size, seed))
        return jax.tree.map(lambda statistic: statistic / batches, total)

    return recalibrate


def prune_curve(
    run: Run,
    rates: Sequence[float],
    *,
    granularity: str = "weight",
    mode: str = "dense",
    batch_size: int = 500,
    recalibration_batches: int = 0,
    seed: int = 0,
) -> list[Row]:
    """Prune a trained network at every rate and score it, without fine-tuning.

    Args:
      run: a trained run.
      rates: shares to remove, each in [0, 1].
      granularity: "weight" or "unit".
      mode: one of `MODES`.
      batch_size: examples a batch, here and for recalibration.
      recalibration_batches: 0 leaves BatchNorm statistics as trained; otherwise every rate is scored again with
        statistics estimated from so many training batches.
      seed: of the draws in "stochastic" mode and of the recalibration batches.

    Returns:
      One `Row` a rate, in the order given.

    Raises:
      UserError: a rate, word or count out of range.
    """
    check_choice("mode", mode, MODES)
    view = make_view(run, granularity, mode)
    eval_step = make_eval_step(run.experiment.model)
    batch_size = min(batch_size, len(run.dataset.train.labels))
    recalibrate = make_recalibration(run, batch_size, recalibration_batches, seed) if recalibration_batches else None
    key = jax.random.key(seed)
    rows = []
    for rate in progress(rates, desc="prune curve", unit="rate"):
        traced = jnp.asarray(rate, jnp.float32)
        pruned, sparsity = view(traced, key)

        def params_of(i: int, traced: Array = traced, pruned: Params = pruned) -> Params:
            return view(traced, jax.random.fold_in(key, i))[0] if mode == "stochastic" else pruned

        raw = score(eval_step, params_of, run.state.batch_stats, run.dataset.evaluation, batch_size)
        row = Row(float(rate), float(sparsity), raw.loss, raw.accuracy, raw.examples)
        if recalibrate is not None:
            statistics = recalibrate(params_of)
            again = score(eval_step, params_of, statistics, run.dataset.evaluation, batch_size)
            row = row._replace(recalibrated_loss=again.loss, recalibrated_accuracy=again.accuracy)
        rows.append(row)
    return rows
