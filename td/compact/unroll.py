"""Scanned layers as separate layers, each with its own widths."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from td.base import Params
from td.compact.loops import correspondences
from td.program.equations import source
from td.program.trace import MOST_UNROLLED, abstract, trace


def unstacked(apply_fn: Callable[..., Any], params: Params, inputs: Sequence[Any]) -> tuple[Callable[..., Any], Params]:
    """Replace every leaf that a scan slices by a tuple of its slices, in the function and in the params."""
    program = trace(apply_fn, abstract(params), abstract(tuple(inputs)))
    made = {value: equation for equation in program.every for value in equation.outputs}
    axes: dict[int, int] = {}  # by leaf, the one that a scan runs along
    for equation in program.every:
        if equation.name == "scan" and equation.bodies and equation.params["length"] <= MOST_UNROLLED:
            axes |= (source(made, value, 0) for value, _ in correspondences(equation)[1])
    along = [axes.get(value) for value in program.leaves]
    tree: Any = jax.tree.structure(params)
    if all(axis is None for axis in along):
        return apply_fn, params

    def unrolled(params: Params, *inputs: Any) -> Any:
        """Stack the layers; tracing undoes it."""
        parts = zip(tree.flatten_up_to(params), along, strict=True)
        stacks = [part if axis is None else jnp.stack(part, axis) for part, axis in parts]
        return apply_fn(tree.unflatten(stacks), *inputs)

    parts = zip(jax.tree.leaves(params), along, strict=True)
    split = [leaf if axis is None else tuple(jnp.unstack(jnp.asarray(leaf), axis=axis)) for leaf, axis in parts]
    return unstacked(unrolled, tree.unflatten(split), inputs)  # scans within these layers
