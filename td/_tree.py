"""Path names of a tree's leaves, leaves replaced by path, and one random key per kernel.

Everything that masks works on plain dicts `{path: array}`, so that any pytree will do.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td.base import Params, RandomKey, Step
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


def kernel_keys(key: RandomKey, step: Step, paths: Iterable[str]) -> dict[str, RandomKey]:
    """Derive the keys of kernels at one step, `fold_in(fold_in(key, step), crc32(path))`.

    Each depends on the kernel's path and not on its place in the tree, so adding a layer changes no other mask.
    """
    paths = list(paths)
    hashes = jnp.array([zlib.crc32(path.encode()) for path in paths], jnp.uint32)
    # All at once: on an accelerator every scalar operation is a launch.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), hashes)
    return {path: keys[i] for i, path in enumerate(paths)}
