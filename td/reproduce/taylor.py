"""Table 1 and Figure 1: how the loss changes by pruning, predicted from gradient and curvature, and as it is."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from td import _tree, prune
from td.base import Params
from td.io.files import replacing
from td.kernels import select_kernels
from td.train.experiment import Run, load_trained
from td.train.score import score
from td.train.state import TrainState
from td.train.step import make_eval_step, make_losses

PRUNED = 0.75
"""The share that the paper prunes here."""

GROUPS = 100
"""Weights are drawn in so many groups of equal size, ordered by magnitude."""

SHOWN = 200
"""So many of the largest weights are drawn one by one."""

CHUNK = 20
"""Products with the Hessian that are taken at a time."""

Vector = Float[Array, "weights"]
Loss = Callable[[Vector, Any], Array]


class Change(NamedTuple):
    """What pruning does to the mean loss, and what was predicted."""

    actual: float  # loss after less loss before
    first_order: float  # `-g.d`, with the gradient `g` and the pruned weights `d`, else 0
    second_order: float  # `d.H.d / 2`, with the Hessian `H`

    @property
    def predicted(self) -> float:
        """`|-g.d + d.H.d / 2|`."""
        return abs(self.first_order + self.second_order)


def mean_over(measure: Callable[[Vector, Any], Array], flat: Vector, batches: Iterable[Any]) -> Array:
    """The mean over batches of one size of what is measured on each."""
    total, count = jnp.zeros(()), 0
    for batch in batches:
        total, count = total + measure(flat, batch), count + 1
    return total / count


def change_of_loss(loss: Loss, flat: Vector, removed: Float[Array, "weights"], batches: list[Any]) -> Change:
    """Predict how the loss changes by removing some weights, and measure it.

    `-g.d + d.H.d / 2`, where `d` are the removed weights and 0 elsewhere.

    Source: Gomez et al. 2019, section 4 (equation for the change of error), after LeCun et al. 1990.
    """
    d = flat * removed

    @jax.jit
    def measure(flat: Vector, batch: Any) -> Array:
        gradient, curved = jax.jvp(lambda w: jax.grad(loss)(w, batch), (flat,), (d,))
        actual = loss(flat - d, batch) - loss(flat, batch)
        return jnp.stack([actual, -jnp.vdot(gradient, d), jnp.vdot(d, curved) / 2])

    return Change(*(float(value) for value in mean_over(measure, flat, batches)))


def curvature(loss: Loss, flat: Vector, groups: list[np.ndarray], batches: list[Any]) -> np.ndarray:
    """The matrix of `theta_i H_ij theta_j`, added up over groups of weights."""

    def parts(chunk: list[np.ndarray]) -> Array:
        vectors = np.zeros((len(chunk), flat.size), np.float32)
        for row, group in enumerate(chunk):
            vectors[row, group] = flat[group]
        return jnp.asarray(vectors)

    @jax.jit
    def products(vectors: Array, flat: Vector, batch: Any) -> Array:
        gradient = jax.grad(loss)
        return jax.vmap(lambda v: jax.jvp(lambda w: gradient(w, batch), (flat,), (v,))[1])(vectors)

    rows = []
    for first in range(0, len(groups), CHUNK):
        vectors = parts(groups[first : first + CHUNK])
        curved = mean_over(partial(products, vectors), flat, batches)
        scaled = np.asarray(curved * flat)
        rows.append(np.stack([scaled[:, group].sum(1) for group in groups], axis=1))
    return np.concatenate(rows).astype(np.float32)


def measure_change(run_folder: Path, path: Path) -> dict[str, Any]:
    """Table 1's row of a trained network, and Figure 1's matrices beside it as .npz."""
    run, state = load_trained(run_folder, finished=True)
    kernels = run.experiment.kernels
    mask = prune.prune_mask(state.params, PRUNED, "weight", kernels=kernels)
    pruned = prune.apply_mask(state.params, mask)
    loss, flat, removed, batches = _problem(run, state, pruned)
    change = change_of_loss(loss, flat, removed, batches)
    order = np.argsort(-np.abs(np.asarray(flat)), kind="stable")
    matrices = {
        "groups": curvature(loss, flat, np.array_split(order, GROUPS), batches),
        "largest": curvature(loss, flat, [order[i : i + 1] for i in range(min(SHOWN, order.size))], batches),
    }
    with replacing(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **matrices)  # type: ignore[arg-type]
    accuracy = _accuracy(run, state.batch_stats)
    return {
        **change._asdict(),
        "predicted": change.predicted,
        "prune_rate": PRUNED,
        "weights": int(flat.size),
        "accuracy_before": accuracy(state.params),
        "accuracy_after": accuracy(pruned),
    }


def _problem(
    run: Run, state: TrainState, pruned_params: Params
) -> tuple[Loss, Vector, Float[Array, "weights"], list[Any]]:
    """Loss over the chosen kernels alone, those kernels, what is removed of them, and the whole evaluation split."""
    params, losses = state.params, make_losses(run.experiment)
    flat, restore = ravel_pytree(select_kernels(params, run.experiment.kernels))
    pruned, _ = ravel_pytree(select_kernels(pruned_params, run.experiment.kernels))

    def loss(flat: Vector, batch: Any) -> Array:
        whole = _tree.replace_leaves(params, restore(flat))
        return jnp.mean(losses(whole, state.batch_stats, batch))

    size = run.dataset.evaluation.size
    # The largest batch of at most 1,000 that divides the split: every example counts once, and the same.
    batch_size = max(count for count in range(1, 1001) if size % count == 0)
    batches = list(run.dataset.evaluation.eval_batches(batch_size))
    return loss, flat, (pruned != flat).astype(jnp.float32), batches


def _accuracy(run: Run, batch_stats: Any) -> Callable[[Params], float]:
    step, split = make_eval_step(run.experiment), run.dataset.evaluation
    return lambda params: score(step, params, batch_stats, split, 500).accuracy
