"""Path names of a tree's leaves, and leaves replaced by path.

Everything that masks works on plain dicts `{path: array}`, so that any pytree will do.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td.base import Params
from td.errors import UserError

PARAMS_OF = {
    "flax.nnx": "graph, params, rest = nnx.split(model, nnx.Param, ...), later nnx.merge(graph, params, rest)",
    "flax.linen": "params = model.init(key, inputs)['params']",
    "equinox": "params, static = eqx.partition(model, eqx.is_inexact_array), later eqx.combine(params, static)",
}
"""Code that extracts the parameters of each library's `Module`; none of these libraries is imported here."""


def path_name(path: tuple[Any, ...]) -> str:
    """Name a leaf by its keys, joined by `/`; the `value` of a Flax NNX variable is no part of it."""
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def paths(params: Params) -> list[str]:
    """Name the leaves of a tree, in flattening order."""
    _reject_modules(params)
    names = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    (common, count), *_ = Counter(names).most_common(1) or [("", 1)]
    if count > 1:
        raise UserError(f"{count} leaves of the tree are called {common!r}: rename a key that has a / in it")
    return names


def _reject_modules(params: Params) -> None:
    """Reject a Module, whose statistics, counters or functions are not parameters."""
    for node in jax.tree.leaves(params, is_leaf=lambda node: _library_of(type(node)) is not None):
        library = _library_of(type(node))
        if library == "equinox" and all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(node)):
            continue  # what eqx.partition gives
        if library:
            raise UserError(f"give parameters, not a whole {library} Module: {PARAMS_OF[library]}")


def _library_of(kind: type) -> str | None:
    """Name the library in `PARAMS_OF` of which a type is a `Module`."""
    homes = [base.__module__ for base in kind.__mro__ if base.__name__ == "Module"]
    return next((library for library in PARAMS_OF if any(home.startswith(library) for home in homes)), None)


def named_leaves(params: Params) -> dict[str, Any]:
    """The leaves of a tree by name."""
    return dict(zip(paths(params), jax.tree.leaves(params), strict=True))


def replace_leaves(params: Params, leaves: Mapping[str, Array]) -> Params:
    """Return the tree with the named leaves replaced."""
    replaced = [leaves.get(path, leaf) for path, leaf in named_leaves(params).items()]
    return jax.tree.unflatten(jax.tree.structure(params), replaced)


def split(flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Cut a vector into arrays of these shapes, one after the other."""
    parts = jnp.split(flat, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
