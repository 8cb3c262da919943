"""Groups and heads of a structure as entries: means over the units that they consist of, and masks of all leaves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import _tree
from td._kernel_axes import Kernel
from td.criteria import COUPLED
from td.structure import Structure


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
    return name.endswith(tuple(f"/{granularity}s" for granularity in COUPLED))


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
            before = tables.get(path, np.full((1,) * groups.ndim, -1))
            tables[path] = np.where(own >= 0, own, before)
    tables = {path: table for path, table in tables.items() if (table >= 0).any()}
    return Coupling(views, named_entries(structure, granularity), order, first, last - first, tables)
