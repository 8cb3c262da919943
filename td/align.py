"""Units moved within their heads, so that what is pruned lies at the same places in all of them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import _tree
from td._entries import entries_of
from td.base import Params
from td.structure import Structure


def align(structure: Structure, params: Params) -> Params:
    """Move the pruned groups of every head to its end, in all leaves that make, scale or read them.

    A kernel `[width, heads, size]` can only shrink where the same columns are dead in every head. Groups of one
    ranking, such as the columns of a head, are exchangeable, so the outputs stay the same but for the order of
    summation. Groups that a constant tells apart, as rotary positions do, stay where they are.

    Args:
      structure: of the network, as `td.trace` gives it.
      params: the tree that it was traced with, pruned by groups.

    Returns:
      The tree with some entries moved. `td.compact` does so by itself, but for heads of one kernel for q, k and v.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> def network(params, x):
      ...     heads = jnp.einsum("td,dhe->hte", x @ params["in"], params["v"])
      ...     weights = jax.nn.softmax(jnp.einsum("hqe,hke->hqk", heads, heads))
      ...     return jnp.einsum("hqk,hke,hed->qd", weights, heads, params["o"]) @ params["out"]
      >>> params = {"in": jnp.ones((1, 1)), "v": jnp.array([[[0.0, 1.0], [2.0, 0.0]]])}
      >>> params |= {"o": jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]]), "out": jnp.ones((1, 1))}
      >>> structure = td.trace(network, params, jnp.ones((3, 1)))
      >>> moved = td.align(structure, params)
      >>> moved["v"].tolist(), moved["o"].ravel().tolist()
      ([[[1.0, 0.0], [2.0, 0.0]]], [2.0, 1.0, 3.0, 4.0])
    """
    leaves, moves = _tree.named_leaves(params), np.arange(structure.size)  # the group that comes to the place of each
    present = entries_of(params, "group", structure).present() if structure.size else {}
    for numbers, kept in zip(structure.families.values(), present.values(), strict=True):
        alive = np.asarray(kept)[:, 0]
        if not (alive == alive[:1]).all() and structure.ordered.isdisjoint(numbers.ravel().tolist()):
            moves[numbers] = np.take_along_axis(numbers, np.argsort(~alive, axis=1, kind="stable"), axis=1)
    moved: dict[str, Array] = {}
    for table in (structure.units, structure.inputs, structure.scales, structure.offsets):
        for path, groups in table.items():
            if (moves[groups[groups >= 0]] != groups[groups >= 0]).any():
                moved[path] = _moved(moved.get(path, jnp.asarray(leaves[path])), groups, moves)
    return _tree.replace_leaves(params, moved)


def _moved(leaf: Array, groups: np.ndarray, moves: np.ndarray) -> Array:
    """Take the entries of each group from those of another one, in order."""
    flat = groups.ravel()
    order, every = np.argsort(flat, kind="stable"), np.arange(len(moves))
    first, count = np.searchsorted(flat[order], every), np.bincount(flat[flat >= 0], minlength=len(moves))
    source = np.arange(flat.size)
    for group in np.flatnonzero((moves != every) & (count > 0)):
        here, there = (order[first[each] : first[each] + count[group]] for each in (group, moves[group]))
        source[here] = there
    axes = [axis for axis, size in enumerate(groups.shape) if size > 1]
    lines = jnp.moveaxis(leaf, axes, range(len(axes)))
    return jnp.moveaxis(lines.reshape(flat.size, -1)[source].reshape(lines.shape), range(len(axes)), axes)
