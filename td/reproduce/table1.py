"""Table 1 and Figure 1: the change of loss by pruning, predicted from gradient and curvature, and measured."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm

from td import prune, tree
from td.base import Params
from td.errors import UserError
from td.evaluate.report import SETTINGS
from td.io.files import load_arrays, replacing
from td.io.run_folder import write_text
from td.kernels import select_kernels
from td.reproduce.plots import save
from td.reproduce.published import published
from td.reproduce.results import Results, markdown
from td.reproduce.table import Table
from td.train.experiment import Run, load_trained
from td.train.losses import make_losses
from td.train.score import score
from td.train.state import TrainState
from td.train.step import make_eval_step

LOG = logging.getLogger(__name__)

PRUNED = 0.75
"""Fraction that the paper prunes here."""

GROUPS = 100
"""Groups of equal size, ordered by magnitude, in which weights are drawn."""

SHOWN = 200
"""The largest weights, drawn one by one."""

CHUNK = 20
"""Products with the Hessian taken at a time."""

Vector = Float[Array, "weights"]
Loss = Callable[[Vector, Any], Array]


class Change(NamedTuple):
    """Change of the mean loss by pruning, and its prediction."""

    actual: float  # loss after less loss before
    first_order: float  # `-g.d`, with the gradient `g` and the pruned weights `d`, else 0
    second_order: float  # `d.H.d / 2`, with the Hessian `H`

    @property
    def predicted(self) -> float:
        """`|-g.d + d.H.d / 2|`."""
        return abs(self.first_order + self.second_order)


def mean_over(measure: Callable[[Vector, Any], Array], flat: Vector, batches: Iterable[Any]) -> Array:
    """Average a measure over batches of one size."""
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
    """Compute the matrix of `theta_i H_ij theta_j`, summed over groups of weights."""

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
    """Measure Table 1's column of a trained network; writes Figure 1's matrices as .npz next to it."""
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
    """Return the loss of the chosen kernels, those kernels, which weights are removed, and the evaluation split."""
    params, losses = state.params, make_losses(run.experiment)
    flat, restore = ravel_pytree(select_kernels(params, run.experiment.kernels))
    pruned, _ = ravel_pytree(select_kernels(pruned_params, run.experiment.kernels))

    def loss(flat: Vector, batch: Any) -> Array:
        whole = tree.replace_leaves(params, restore(flat))
        return jnp.mean(losses(whole, state.batch_stats, batch))

    size = run.dataset.evaluation.size
    # The largest batch of at most 1,000 that divides the split: every example counts once, and the same.
    batch_size = max(count for count in range(1, 1001) if size % count == 0)
    batches = list(run.dataset.evaluation.eval_batches(batch_size))
    return loss, flat, (pruned != flat).astype(jnp.float32), batches


def _accuracy(run: Run, batch_stats: Any) -> Callable[[Params], float]:
    step, split = make_eval_step(run.experiment), run.dataset.evaluation
    return lambda params: score(step, params, batch_stats, split, 500).accuracy


class Quantity(NamedTuple):
    """A line of Table 1."""

    published: str  # its name in the published table
    title: str
    spec: str  # its format


QUANTITIES = {
    "predicted": Quantity("change", "predicted change of loss, abs(-g.d + d.H.d/2)", ".4f"),
    "first_order": Quantity("first", "first order, -g.d", ".4f"),
    "second_order": Quantity("second", "second order, d.H.d/2", ".4f"),
    "actual": Quantity("actual", "actual change of loss", ".4f"),
    "accuracy_before": Quantity("before", "accuracy % before pruning", ".2f"),
    "accuracy_after": Quantity("after", "accuracy % after pruning", ".2f"),
}
"""Keys of `change_of_loss` in a result file -> what is shown of them."""

TABLE_NOTE = (
    "Ours, mean ± standard deviation over seeds (published). The loss is the mean cross entropy of all test images; "
    "75 % of all weights are removed, the smallest of each unit."
)

FIGURE_NOTE = (
    "Figure 1: theta_i H_ij theta_j on all test images, weights ordered by magnitude, the largest first; one colour "
    "scale for both networks. Above, summed over 100 groups of equal size; the dotted lines part the first 25 % from "
    "the 75 % to be pruned. Below, the 200 largest weights one by one."
)


def sections(table: Table, results: Results, path: Path) -> list[str]:
    """Make the sections of the report that only Table 1 has; writes .csv, .tex and the picture."""
    cells = _cells(table, results)
    with replacing(path.with_suffix(".csv")) as temporary:
        named = cells.rename(index={name: quantity.title for name, quantity in QUANTITIES.items()}).reset_index()
        named.assign(scale=results.scale)[["scale", *named]].to_csv(temporary, index=False)
    heading = f"scale {results.scale}"
    latex = markdown(_lines(cells.assign(published=np.nan), heading), tablefmt="latex_booktabs")
    write_text(path.with_suffix(".tex"), f"{latex}\n")
    parts = [f"{TABLE_NOTE}\n\n{markdown(_lines(cells, heading))}"]
    if drawn := _matrices(table, results, path.with_suffix("")):
        draw(drawn, results.scale, path)
        parts.append(f"![Figure 1]({path.stem}.png)\n\n{FIGURE_NOTE}")
    return parts


def _cells(table: Table, results: Results) -> pd.DataFrame:
    """Compute mean, deviation, n and the published value by quantity and column."""
    changes = ({"column": file["column"], **file["change_of_loss"]} for file in results.files)
    found = pd.DataFrame(changes, columns=["column", *QUANTITIES])
    found[["accuracy_before", "accuracy_after"]] *= 100
    every = pd.MultiIndex.from_product([QUANTITIES, table.columns()], names=["quantity", "column"])
    values = found.melt("column", var_name="quantity").groupby(["quantity", "column"])["value"]
    cells = values.agg(mean="mean", deviation="std", n="count").reindex(every).fillna({"n": 0}).astype({"n": int})
    theirs = published(table.published["accuracy"])["published"].droplevel("prune_rate")
    names = [f"{column} {QUANTITIES[quantity].published}" for quantity, column in every]
    return cells.assign(published=theirs.reindex(names).array)


def _lines(cells: pd.DataFrame, heading: str) -> pd.DataFrame:
    """Format one line a quantity, one column a network."""

    def text(cell: Any) -> str:
        spec = QUANTITIES[cell.name[0]].spec
        shown = "missing" if np.isnan(cell["mean"]) else f"{cell['mean']:{spec}}"
        shown += "" if np.isnan(cell["deviation"]) else f" ± {cell['deviation']:{spec}}"
        return shown + ("" if np.isnan(cell["published"]) else f" ({cell['published']:{spec}})")

    lines = cells.apply(text, axis=1).unstack("column", sort=False)
    n = cells["n"].groupby(level="column", sort=False).max()
    lines.columns = [f"{column} (n={n[column]})" for column in lines]
    lines.insert(0, heading, [QUANTITIES[name].title for name in lines.index])
    return lines


def _matrices(table: Table, results: Results, folder: Path) -> dict[str, Mapping[str, np.ndarray]]:
    """Read, for every column, the matrices of the first seed that has them."""
    found: dict[str, Mapping[str, np.ndarray]] = {}
    for column in table.columns():
        for file in results.files:
            path = folder / f"{file['run']}.npz"
            if file["column"] == column and path.exists():
                advice = "left out of the figure; delete its result file to have it made again"
                try:
                    found[f"{column}, seed {file['seed']}"] = load_arrays(path, f"{path} is damaged", advice)
                    break
                except UserError as error:
                    LOG.warning("%s", error)
    return found


def draw(networks: Mapping[str, Mapping[str, np.ndarray]], scale: str, path: Path) -> None:
    """Draw the matrices of several networks side by side."""
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(
            2, len(networks), figsize=(3.9 * len(networks) + 0.8, 7.4), squeeze=False, layout="constrained"
        )
        for line, kind in zip(axes, ("groups", "largest"), strict=True):
            matrices = [matrix[kind] for matrix in networks.values()]
            top = max(float(np.abs(matrix).max()) for matrix in matrices) or 1.0
            # A power of ten, so that the labels of the colour bar do not overlap.
            norm = SymLogNorm(linthresh=10.0 ** (np.floor(np.log10(top)) - 3), vmin=-top, vmax=top)
            for axis, name, matrix in zip(line, networks, matrices, strict=True):
                image = axis.imshow(matrix, cmap="RdBu_r", norm=norm, interpolation="nearest")
                _label(axis, kind, name, len(matrix))
            label = "sum over two groups" if kind == "groups" else "two weights"
            figure.colorbar(image, ax=list(line), shrink=0.85, label=label)
        figure.suptitle(f"Figure 1, scale {scale}")
        save(figure, path)


def _label(axis: Axes, kind: str, name: str, size: int) -> None:
    axis.set_title(name)
    if kind == "groups":
        axis.axhline(size / 4 - 0.5, color="black", lw=0.8, ls=":")
        axis.axvline(size / 4 - 0.5, color="black", lw=0.8, ls=":")
        ticks: Sequence[int] = (0, 25, 50, 75, 100)
        axis.set_xticks([tick * size / 100 - 0.5 for tick in ticks], [str(tick) for tick in ticks])
        axis.set_yticks([tick * size / 100 - 0.5 for tick in ticks], [str(tick) for tick in ticks])
        axis.set_xlabel("weights, largest first (%)")
        axis.set_ylabel("weights, largest first (%)")
    else:
        axis.set_xlabel("weights, largest first (rank)")
        axis.set_ylabel("weights, largest first (rank)")
