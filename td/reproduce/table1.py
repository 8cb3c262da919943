"""Table 1 and Figure 1: the change of loss by pruning, predicted from gradient and curvature, and measured."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.image import AxesImage

from td import _tree, prune
from td.evaluate.plots import SETTINGS, save
from td.io.files import load_arrays, replacing, write_text
from td.kernels import select_kernels
from td.reproduce.results import Results, markdown, published
from td.reproduce.table import Table
from td.train.experiment import load_trained
from td.train.score import score
from td.train.step import make_eval_step, make_losses

PRUNED = 0.75  # as in the paper
GROUPS = 100  # of equal size, ordered by magnitude, in which weights are drawn
SHOWN = 200  # the largest weights, drawn one by one
CHUNK = 20  # products with the Hessian at a time

Vector = Float[Array, "weights"]
Loss = Callable[[Vector, Any], Array]


def change_of_loss(loss: Loss, flat: Vector, removed: Float[Array, "weights"], batches: list[Any]) -> dict[str, float]:
    """Measure the change of loss without some weights `d`, and predict it by `-g.d + d.H.d / 2` (section 4)."""
    d = flat * removed

    @jax.jit
    def measure(flat: Vector, batch: Any) -> Array:
        gradient, curved = jax.jvp(lambda w: jax.grad(loss)(w, batch), (flat,), (d,))
        actual = loss(flat - d, batch) - loss(flat, batch)
        return jnp.stack([actual, -jnp.vdot(gradient, d), jnp.vdot(d, curved) / 2])

    measured = sum(measure(flat, batch) for batch in batches) / len(batches)
    actual, first, second = map(float, measured)
    return {"actual": actual, "first_order": first, "second_order": second, "predicted": abs(first + second)}


def curvature(loss: Loss, flat: Vector, groups: list[np.ndarray], batches: list[Any]) -> np.ndarray:
    """Compute the matrix of `theta_i H_ij theta_j`, summed over groups of weights."""

    @jax.jit
    def products(vectors: Array, flat: Vector, batch: Any) -> Array:
        gradient = jax.grad(loss)
        return jax.vmap(lambda v: jax.jvp(lambda w: gradient(w, batch), (flat,), (v,))[1])(vectors)

    rows = []
    for first in range(0, len(groups), CHUNK):
        vectors = np.zeros((len(groups[first : first + CHUNK]), flat.size), np.float32)
        for vector, group in zip(vectors, groups[first:], strict=False):
            vector[group] = flat[group]
        curved = sum(products(jnp.asarray(vectors), flat, batch) for batch in batches) / len(batches)
        scaled = np.asarray(curved * flat)
        rows.append(np.stack([scaled[:, group].sum(1) for group in groups], axis=1))
    return np.concatenate(rows).astype(np.float32)


def measure_change(run_folder: Path, path: Path) -> dict[str, Any]:
    """Measure Table 1's column of a trained network; writes Figure 1's matrices as .npz next to it."""
    run, state = load_trained(run_folder, finished=True)
    params, kernels, evaluation = state.params, run.experiment.kernels, run.dataset.evaluation
    pruned = prune.apply_mask(params, prune.prune_mask(params, PRUNED, "weight", kernels=kernels))
    (flat, restore), (left, _) = (ravel_pytree(select_kernels(each, kernels)) for each in (params, pruned))
    losses, eval_step = make_losses(run.experiment), make_eval_step(run.experiment)

    def loss(flat: Vector, batch: Any) -> Array:
        return jnp.mean(losses(_tree.replace_leaves(params, restore(flat)), state.batch_stats, batch))

    # The largest batch of at most 1,000 that divides the split: every example counts once, and the same.
    batch_size = max(count for count in range(1, 1001) if evaluation.size % count == 0)
    batches = list(evaluation.eval_batches(batch_size))
    order = np.argsort(-np.abs(np.asarray(flat)), kind="stable")
    matrices = {
        "groups": curvature(loss, flat, np.array_split(order, GROUPS), batches),
        "largest": curvature(loss, flat, [order[i : i + 1] for i in range(min(SHOWN, order.size))], batches),
    }
    with replacing(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **matrices)  # type: ignore[arg-type]
    before, after = (score(eval_step, each, state.batch_stats, evaluation, 500).accuracy for each in (params, pruned))
    about = {"prune_rate": PRUNED, "weights": int(flat.size), "accuracy_before": before, "accuracy_after": after}
    return {**change_of_loss(loss, flat, (left != flat).astype(jnp.float32), batches), **about}


QUANTITIES = {
    "predicted": ("predicted change of loss, abs(-g.d + d.H.d/2)", "change", ".4f"),
    "first_order": ("first order, -g.d", "first", ".4f"),
    "second_order": ("second order, d.H.d/2", "second", ".4f"),
    "actual": ("actual change of loss", "actual", ".4f"),
    "accuracy_before": ("accuracy % before pruning", "before", ".2f"),
    "accuracy_after": ("accuracy % after pruning", "after", ".2f"),
}
"""Key of `change_of_loss` in a result file -> title, name in the published table, and format."""

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
    cells, heading = _cells(table, results), f"scale {results.scale}"
    named = cells.rename(index={name: title for name, (title, *_) in QUANTITIES.items()}).assign(scale=results.scale)
    numbers = ["scale", "quantity", "column", "mean", "deviation", "n", "published"]
    write_text(path.with_suffix(".csv"), named.reset_index()[numbers].to_csv(index=False))
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
    names = [f"{column} {QUANTITIES[quantity][1]}" for quantity, column in every]
    return cells.assign(published=theirs.reindex(names).array)


def _lines(cells: pd.DataFrame, heading: str) -> pd.DataFrame:
    """Format one line a quantity, one column a network."""

    def text(cell: Any) -> str:
        *_, spec = QUANTITIES[cell.name[0]]
        shown = "missing" if np.isnan(cell["mean"]) else f"{cell['mean']:{spec}}"
        shown += "" if np.isnan(cell["deviation"]) else f" ± {cell['deviation']:{spec}}"
        return shown + ("" if np.isnan(cell["published"]) else f" ({cell['published']:{spec}})")

    lines = cells.apply(text, axis=1).unstack("column", sort=False)
    lines.columns = [f"{column} (n={cells['n'].xs(column, level='column').max()})" for column in lines]
    lines.insert(0, heading, [QUANTITIES[name][0] for name in lines.index])
    return lines


def _matrices(table: Table, results: Results, folder: Path) -> dict[str, Mapping[str, np.ndarray]]:
    """Read, for every column, the matrices of the first seed that has them."""
    paths = {(file["column"], file["seed"]): folder / f"{file['run']}.npz" for file in results.files}
    first = {column: (seed, path) for (column, seed), path in reversed(paths.items()) if path.exists()}
    found = {f"{column}, seed {first[column][0]}": first[column][1] for column in table.columns() if column in first}
    return {name: load_arrays(path, f"{path} is damaged", "delete it") for name, path in found.items()}


def draw(networks: Mapping[str, Mapping[str, np.ndarray]], scale: str, path: Path) -> None:
    """Draw the matrices of several networks side by side."""
    size = (3.9 * len(networks) + 0.8, 7.4)
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(2, len(networks), figsize=size, squeeze=False, layout="constrained")
        for line, kind in zip(axes, ("groups", "largest"), strict=True):
            top = max(float(np.abs(matrices[kind]).max()) for matrices in networks.values()) or 1.0
            # A power of ten, so that the labels of the colour bar do not overlap.
            norm = SymLogNorm(linthresh=10.0 ** (np.floor(np.log10(top)) - 3), vmin=-top, vmax=top)
            for axis, (name, matrices) in zip(line, networks.items(), strict=True):
                image = _matrix(axis, kind, name, matrices[kind], norm)
            label = "sum over two groups" if kind == "groups" else "two weights"
            figure.colorbar(image, ax=list(line), shrink=0.85, label=label)
        figure.suptitle(f"Figure 1, scale {scale}")
        save(figure, path)


def _matrix(axis: Axes, kind: str, name: str, matrix: np.ndarray, norm: SymLogNorm) -> AxesImage:
    size, unit = (100, "%") if kind == "groups" else (len(matrix), "rank")
    label, ends = f"weights, largest first ({unit})", (0, size, size, 0)
    axis.set(title=name, xlabel=label, ylabel=label)
    image = axis.imshow(matrix, cmap="RdBu_r", norm=norm, interpolation="nearest", extent=ends)
    if kind == "groups":
        for line in (axis.axhline, axis.axvline):
            line(size / 4, color="black", lw=0.8, ls=":")
        axis.set(xticks=range(0, 101, 25), yticks=range(0, 101, 25))
    return image
