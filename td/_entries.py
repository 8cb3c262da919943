"""Entries that are ranked, drawn and masked: weights or units of kernels, or groups and heads of a structure."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from td import _tree, criteria, select
from td._kernel_axes import Kernel
from td.base import Params, RandomKey
from td.errors import UserError
from td.kernels import KERNELS, Patterns, find_kernels, kernel_keys, structure_of
from td.structure import Structure

Scores = Mapping[str, Array]


def entries_shape(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """Shape of an array with one entry a weight, or one a unit."""
    return tuple(shape) if granularity == "weight" else (*shape[:-2], 1, shape[-1])


class Coupling(NamedTuple):
    """Indices between entries, units and leaves."""

    views: dict[str, Kernel]  # of the leaves that have a unit in some entry
    entries: dict[str, np.ndarray]  # `[rankings, n]`, numbers of the entries that are ranked together
    order: np.ndarray  # places of units among those of all views, sorted by the entry that they belong to
    first: np.ndarray  # for every entry its first unit in `order`
    counts: np.ndarray  # for every entry the number of its units
    tables: dict[str, np.ndarray]  # for every entry of a leaf its number, -1 for none, an array of its rank

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the entries, `[rankings, 1, n]`."""
        return {name: (len(numbers), 1, numbers.shape[1]) for name, numbers in self.entries.items()}

    def means(self, units: Mapping[str, Array]) -> dict[str, Array]:
        """Means over the units of every entry, given as `{path: [*stack, 1, units]}`."""
        flat = jnp.concatenate([units[path].astype(jnp.float32).ravel() for path in self.views])
        counts: dict[int, list[str]] = {}
        for name, numbers in self.entries.items():
            counts.setdefault(int(self.counts[numbers.flat[0]]), []).append(name)
        found: dict[str, Array] = {}
        for count, names in counts.items():  # on an accelerator every gather is a launch
            entries = np.concatenate([self.entries[name].ravel() for name in names])
            places = self.order[self.first[entries][:, None] + np.arange(count)]
            found |= _tree.split(jnp.mean(flat[places], axis=-1), {name: self.shapes[name] for name in names})
        return {name: found[name] for name in self.entries}

    def masks(self, kept: Mapping[str, Array]) -> dict[str, Array]:
        """Masks of the leaves, of their rank and of size 1 along axes without differences."""
        order = np.concatenate([numbers.ravel() for numbers in self.entries.values()])
        place = np.full(len(self.first) + 1, len(order))  # the last for what is in no entry
        place[order] = np.arange(len(order))
        flat = jnp.concatenate([*(kept[name].ravel() for name in self.entries), jnp.ones(1, bool)])
        whole = flat[np.concatenate([place[table].ravel() for table in self.tables.values()])]
        return _tree.split(whole, {path: table.shape for path, table in self.tables.items()})


def named_entries(structure: Structure, granularity: str) -> dict[str, np.ndarray]:
    """Groups, or heads, that are ranked together, by the name of a kernel and a suffix."""
    named = structure.families if granularity == "group" else structure.heads
    return {f"{name}/{granularity}s": numbers for name, numbers in named.items()}


def is_coupled(name: str) -> bool:
    """True for names of `named_entries`."""
    return name.endswith(tuple(f"/{granularity}s" for granularity in criteria.COUPLED))


def couple(
    structure: Structure, granularity: str, shapes: Mapping[str, tuple[int, ...]], offsets: bool = True
) -> Coupling:
    """Arrange the groups, or the heads, of a structure as entries."""
    entry = np.full(structure.size + 1, -1)  # of every group; the last for entries of a leaf in none
    if granularity == "group":
        entry[:-1] = np.arange(structure.size)
    else:
        for head, groups in enumerate(structure.head_groups):
            entry[list(groups)] = head
    views, columns = {}, []
    for path, groups in structure.units.items():
        wide = tuple(axis - groups.ndim for axis, size in enumerate(groups.shape) if size > 1)
        view = structure.every.get(path) or Kernel(shapes[path], units=wide)  # an embedding's columns are units
        inner = view.order[len(view.stacked) : len(view.order) - len(view.units)]
        numbers = entry[np.broadcast_to(groups, [1 if axis in inner else n for axis, n in enumerate(view.shape)])]
        views[path] = view
        columns.append(np.transpose(numbers, view.order).ravel())
    flat = np.concatenate(columns) if columns else np.zeros(0, int)
    order = np.argsort(flat, kind="stable")
    every = np.arange(entry.max(initial=-1) + 1)
    first, last = (np.searchsorted(flat[order], every, side) for side in ("left", "right"))
    tables: dict[str, Any] = {}
    for given in (structure.units, structure.scales, *([structure.offsets] if offsets else [])):
        for path, groups in given.items():
            own = entry[groups]
            tables[path] = np.where(own >= 0, own, tables.get(path, -1))
    tables = {path: table for path, table in tables.items() if (table >= 0).any()}
    return Coupling(views, named_entries(structure, granularity), order, first, last - first, tables)


class Entries(NamedTuple):
    """The entries of one tree, by the names of kernels, or of families of groups."""

    granularity: str
    views: Mapping[str, Kernel]  # of the leaves that make the entries
    matrices: Mapping[str, Array]  # those leaves, `[*stack, fan_in, units]`
    coupling: Coupling | None  # of groups and heads
    leaves: Mapping[str, Any]  # of the tree

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the entries, by name."""
        if self.coupling is not None:
            return self.coupling.shapes
        return {path: entries_shape(view.matrix_shape, self.granularity) for path, view in self.views.items()}

    def saliencies(self, criterion: str = "magnitude", measured: Scores = {}) -> dict[str, Array]:  # noqa: B006
        """Importances up to their sign."""
        if self.coupling is not None and criteria.criterion_of(criterion).measures == "draws":
            return {name: measured[name] for name in self.shapes}
        granularity = "weight" if self.granularity == "weight" else "unit"

        def each(matrices: Mapping[str, Array]) -> dict[str, Array]:
            return {p: criteria.saliency(m, granularity, criterion, measured.get(p)) for p, m in matrices.items()}

        by_unit = granularity == "unit" and not measured
        found = _by_height(each, self.matrices) if by_unit else each(self.matrices)
        if self.coupling is None:
            return found
        return self.coupling.means({path: _normalised(jnp.abs(score)) for path, score in found.items()})

    def scores(self, given: Scores, criterion: str) -> dict[str, Array]:
        """Given importances, of entries or of the weights and units that make them; by the criterion without any."""
        if self.coupling is None:
            return {path: self._score(path, given.get(path), self.granularity, criterion) for path in self.matrices}
        units = {path: _normalised(self._score(path, given.get(path), "unit", criterion)) for path in self.matrices}
        found = self.coupling.means(units)
        return {name: select.rank_zeros_first(given.get(name, found[name]), p) for name, p in self.present().items()}

    def _score(self, path: str, score: Array | None, granularity: str, criterion: str) -> Array:
        matrix = self.matrices[path]
        of_units = entries_shape(matrix.shape, "unit")
        if score is not None and score.shape not in (matrix.shape, of_units):
            valid = f"{list(matrix.shape)}, or {list(of_units)} for units"
            raise UserError(f"the scores of {path!r} have shape {list(score.shape)}: give {valid}")
        if score is None or (granularity == "weight" and score.shape != matrix.shape):
            return criteria.saliency(matrix, granularity, criterion)
        score = score if jnp.issubdtype(score.dtype, jnp.floating) else score.astype(jnp.float32)
        score = criteria.importance(score, granularity) if score.shape[-2] > 1 else score
        return select.rank_zeros_first(score, _present(matrix, granularity))

    def present(self) -> dict[str, Array]:
        """True where an entry has a nonzero weight."""
        if self.coupling is None:
            return {path: _present(matrix, self.granularity) for path, matrix in self.matrices.items()}
        units = {path: _present(m, "unit").astype(jnp.float32) for path, m in self.matrices.items()}
        return {name: mean > 0 for name, mean in self.coupling.means(units).items()}

    def squares(self) -> list[tuple[Array, Array | int]]:
        """Sums of squares of the entries, and the number of weights of each, by kernel or family."""
        units = {p: jnp.sum(jnp.square(m.astype(jnp.float32)), -2, keepdims=True) for p, m in self.matrices.items()}
        if self.coupling is None:
            return [(squares, self.matrices[path].shape[-2]) for path, squares in units.items()]
        fan_in = {path: jnp.full_like(squares, self.matrices[path].shape[-2]) for path, squares in units.items()}
        squares, weights = self.coupling.means(units), self.coupling.means(fan_in)
        counts = {name: self.coupling.counts[numbers.flat[0]] for name, numbers in self.coupling.entries.items()}
        return [(squares[name] * count, weights[name][0, 0, 0] * count) for name, count in counts.items()]

    def masked(self, kept: Mapping[str, Array], divisor: Array | None = None) -> dict[str, Array]:
        """The leaves without the entries that are not kept; the others divided, if asked."""
        if self.coupling is not None:
            return {
                path: _masked(self.leaves[path], mask, divisor if path in self.views else None)
                for path, mask in self.coupling.masks(kept).items()
            }
        select.check_spread({path: self.matrices[path] for path in kept})
        masked = {path: _masked(self.matrices[path], mask, divisor) for path, mask in kept.items()}
        return {path: self.views[path].as_kernel(matrix) for path, matrix in masked.items()}

    def masks(self, kept: Mapping[str, Array]) -> dict[str, Array]:
        """Masks of whole leaves."""
        if self.coupling is not None:
            masks = self.coupling.masks(kept)
            return {path: jnp.broadcast_to(mask, self.leaves[path].shape) for path, mask in masks.items()}
        whole = {path: jnp.broadcast_to(kept[path], matrix.shape) for path, matrix in self.matrices.items()}
        return {path: view.as_kernel(whole[path]) for path, view in self.views.items()}


def _by_height(function: Callable[[Scores], dict[str, Array]], matrices: Scores) -> dict[str, Array]:
    """Apply a function of columns: on accelerators to all matrices of one height at once, which are fewer launches."""

    def together(matrices: Scores) -> dict[str, Array]:
        alike: dict[Any, list[str]] = {}
        for path, matrix in matrices.items():
            alike.setdefault((matrix.shape[:-1], matrix.dtype), []).append(path)
        found: dict[str, Array] = {}
        for paths in alike.values():
            ends = np.cumsum([matrices[path].shape[-1] for path in paths])[:-1]
            whole = function({"": jnp.concatenate([matrices[path] for path in paths], -1)})[""]
            found |= zip(paths, jnp.split(whole, ends, -1), strict=True)
        return found

    found = lax.platform_dependent(dict(matrices), cpu=function, default=together)
    return {path: found[path] for path in matrices}  # a dict that JAX returns is sorted


def _present(matrix: Array, granularity: str) -> Array:
    return matrix != 0 if granularity == "weight" else jnp.any(matrix != 0, axis=-2, keepdims=True)


def _normalised(score: Array) -> Array:
    """Importances of units in proportion to their kernel's mean, so that kernels of a group count alike."""
    mean = jnp.mean(score, axis=-1, keepdims=True)
    return score / jnp.where(mean > 0, mean, 1)


def _masked(array: Array, mask: Array, divisor: Array | None) -> Array:
    kept = array if divisor is None else array / divisor.astype(array.dtype)
    return jnp.where(mask, kept, jnp.zeros_like(array))


def entries_of(params: Params, granularity: str, kernels: Patterns = KERNELS, offsets: bool = True) -> Entries:
    """The entries of a tree; `offsets` of groups and heads go with them."""
    leaves = _tree.named_leaves(params)
    coupling, views = None, find_kernels(params, kernels)
    if granularity in criteria.COUPLED:
        structure = structure_of(kernels)
        if structure is None:
            raise UserError(
                f"granularity {granularity!r} needs the network's structure: "
                "give kernels=td.trace(apply_fn, params, *example_inputs)"
            )
        coupling = couple(structure, granularity, {p: jnp.shape(leaf) for p, leaf in leaves.items()}, offsets)
        if not coupling.entries:
            raise UserError(f"this network has no {granularity} that may go: print td.trace(...) to see why")
        views = coupling.views
    return Entries(granularity, views, {p: view.as_matrix(leaves[p]) for p, view in views.items()}, coupling, leaves)


def draw_entries(
    draw: Callable[[RandomKey, tuple[int, ...], DTypeLike], Array],
    key: RandomKey,
    params: Params,
    granularity: str,
    kernels: Patterns = KERNELS,
) -> dict[str, Array]:
    """Make one number for each entry."""
    shapes = entries_of(params, granularity, kernels).shapes
    keys = kernel_keys(key, 0, shapes)
    # Not the key of step 0, should the user give the same one to `init` and `apply`.
    return {name: draw(jax.random.fold_in(keys[name], 1), shape, jnp.float32) for name, shape in shapes.items()}
