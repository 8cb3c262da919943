"""Table 1 and Figure 1: how the loss changes by pruning, foretold from gradient and curvature, and as it is."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from td import prune, tree
from td.base import Params
from td.evaluate import score
from td.experiment import Run, load_trained
from td.files import replacing
from td.kernels import select_kernels
from td.step import make_eval_step, make_losses

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
    """What pruning does to the mean loss, and what was foretold.

    Attributes:
      actual: loss after less loss before.
      first_order: `-g.d`, with the gradient `g` and the pruned weights `d`, else 0.
      second_order: `d.H.d / 2`, with the Hessian `H`.
    """

    actual: float
    first_order: float
    second_order: float

    @property
    def foretold(self) -> float:
        """`|-g.d + d.H.d / 2|`."""
        return abs(self.first_order + self.second_order)


def mean_over(measure: Callable[[Vector, Any], Array], flat: Vector, batches: Iterable[Any]) -> Array:
    """The mean over batches of one size of what is measured on each.

    Args:
      measure: `(weights, batch) -> array`.
      flat: the weights.
      batches: all of one size.

    Returns:
      The mean.
    """
    total, count = jnp.zeros(()), 0
    for batch in batches:
        total, count = total + measure(flat, batch), count + 1
    return total / count


def change_of_loss(loss: Loss, flat: Vector, removed: Float[Array, "weights"], batches: list[Any]) -> Change:
    """Foretell the change of loss by removing some weights, and measure it.

    `-g.d + d.H.d / 2`, where `d` are the removed weights and 0 elsewhere.

    Args:
      loss: `(weights, batch) -> mean loss`.
      flat: all weights.
      removed: 1 where a weight is removed, else 0.
      batches: the whole set that the loss is over, in batches of one size.

    Returns:
      The `Change`.

    Example:
      >>> loss = lambda w, x: jnp.sum(x * w**2)  # g = 2 x w, H = 2 x: the second order is exact
      >>> change = change_of_loss(loss, jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), [jnp.array([3.0, 1.0])])
      >>> change.actual, change.first_order, change.second_order
      (-3.0, -6.0, 3.0)

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
    """The matrix of `theta_i H_ij theta_j`, added up over groups of weights.

    Args:
      loss: `(weights, batch) -> mean loss`.
      flat: all weights, theta.
      groups: indices of the weights of each group.
      batches: the whole set that the loss is over, in batches of one size.

    Returns:
      float32 `[groups, groups]`.

    Example:
      >>> loss = lambda w, x: x * w[0] * w[1]  # H = [[0, x], [x, 0]]
      >>> curvature(loss, jnp.array([2.0, 3.0]), [np.array([0]), np.array([1])], [jnp.float32(5.0)]).tolist()
      [[0.0, 30.0], [30.0, 0.0]]
    """

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
    """Table 1's row of a trained network, and Figure 1's matrices beside it as .npz.

    Args:
      run_folder: the run's folder.
      path: of the result file; the matrices have the same name with the suffix .npz.

    Returns:
      The numbers, for the result file. Shares and losses, nothing in per cent.
    """
    _, run = load_trained(run_folder)
    kernels = run.experiment.kernels
    mask = prune.prune_mask(run.state.params, PRUNED, "weight", kernels=kernels)
    pruned = prune.apply_mask(run.state.params, mask)
    loss, flat, removed, batches = _problem(run, pruned)
    change = change_of_loss(loss, flat, removed, batches)
    order = np.argsort(-np.abs(np.asarray(flat)), kind="stable")
    matrices = {
        "groups": curvature(loss, flat, np.array_split(order, GROUPS), batches),
        "largest": curvature(loss, flat, [order[i : i + 1] for i in range(min(SHOWN, order.size))], batches),
    }
    with replacing(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **matrices)  # type: ignore[arg-type]
    accuracy = _accuracy(run)
    return {
        **change._asdict(),
        "foretold": change.foretold,
        "prune_rate": PRUNED,
        "weights": int(flat.size),
        "accuracy_before": accuracy(run.state.params),
        "accuracy_after": accuracy(pruned),
    }


def _problem(run: Run, pruned_params: Params) -> tuple[Loss, Vector, Float[Array, "weights"], list[Any]]:
    """Loss over the chosen kernels alone, those kernels, what is removed of them, and the whole evaluation split."""
    params, losses = run.state.params, make_losses(run.experiment.model, run.experiment.task)
    flat, restore = ravel_pytree(select_kernels(params, run.experiment.kernels))
    pruned, _ = ravel_pytree(select_kernels(pruned_params, run.experiment.kernels))

    def loss(flat: Vector, batch: Any) -> Array:
        whole = tree.replace_leaves(params, restore(flat))
        return jnp.mean(losses(whole, run.state.batch_stats, batch))

    size = run.dataset.evaluation.size
    # The largest batch of at most 1,000 that divides the split: every example counts once, and the same.
    batch_size = max(count for count in range(1, 1001) if size % count == 0)
    batches = list(run.dataset.evaluation.eval_batches(batch_size))
    return loss, flat, (pruned != flat).astype(jnp.float32), batches


def _accuracy(run: Run) -> Callable[[Params], float]:
    step, split = make_eval_step(run.experiment.model, run.experiment.task), run.dataset.evaluation
    return lambda params: score(step, lambda _: params, run.state.batch_stats, split, 500).accuracy
