"""Constants that a bias, or the mean of a norm, takes over: no constant of their own and no addition."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td.compact.analysis import Analysis
from td.compact.emit import Layout
from td.compact.program import Equation, Program
from td.compact.rules.base import sizes
from td.compact.values import Broadcastable, KeptIndices

CARRIERS = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type")


class Fold(NamedTuple):
    """The constant of an equation, added to a leaf or, where the leaf is subtracted, taken from it."""

    equation: int
    leaf: int
    sign: int


def folds(program: Program, analysis: Analysis, layout: Layout) -> list[Fold]:
    """Where the output of a sum meets a leaf, which nothing else uses, in an addition or subtraction."""
    uses = Counter([*program.outputs, *(value for equation in program.equations for value in equation.inputs)])
    producers = {value: equation for equation in program.equations for value in equation.outputs}
    consumers: dict[int, Equation] = {value: e for e in program.equations for value in e.inputs}
    found, taken = [], set()
    for eqn_index, contraction in analysis.contractions.items():
        if "bias" not in contraction.absorbed:
            continue
        output, bias = program.equations[eqn_index].outputs[0], contraction.absorbed["bias"]
        while uses[output] == 1 and output in consumers and consumers[output].name == "transpose":
            bias = bias.transpose(consumers[output].params["permutation"])
            output = consumers[output].outputs[0]
        total = consumers.get(output)
        if uses[output] != 1 or total is None or total.name not in ("add", "sub"):
            continue
        side = total.inputs.index(output)
        carried = _leaf(program, producers, uses, total.inputs[1 - side])
        if carried is None or carried[0] in taken or (total.name == "sub" and side == 1):
            continue
        leaf, axis = carried
        if _fits(program, layout, output, total.outputs[0], leaf, axis, bias):
            taken.add(leaf)
            found.append(Fold(eqn_index, leaf, 1 if total.name == "add" else -1))
    return found


def _leaf(program: Program, producers: dict[int, Equation], uses: Counter[int], value: int) -> tuple[int, int] | None:
    """The leaf of one axis that a value is, but for its shape, and which axis of the value that axis is."""
    carriers: list[Equation] = []
    while value in producers and producers[value].name in CARRIERS and uses[value] == 1:
        carriers.insert(0, producers[value])
        value = producers[value].inputs[0]
    if value not in program.leaves or uses[value] != 1 or len(program.shape(value)) != 1:
        return None
    axis: int | None = 0
    for carrier in carriers:
        axis = None if axis is None else _carried(program, carrier, axis)
    return None if axis is None else (value, axis)


def _carried(program: Program, carrier: Equation, axis: int) -> int | None:
    """Which axis of its output a carrier makes of an axis of its operand; None where that is more than one."""
    if carrier.name == "broadcast_in_dim":
        return int(carrier.params["broadcast_dimensions"][axis])
    if carrier.name == "squeeze":
        return axis - sum(gone < axis for gone in carrier.params["dimensions"])
    if carrier.name == "convert_element_type":
        return axis
    before, after = program.shape(carrier.inputs[0]), program.shape(carrier.outputs[0])
    if any(size != 1 for i, size in enumerate(before) if i != axis):
        return None
    long = [i for i, size in enumerate(after) if size != 1]
    return long[0] if len(long) == 1 else 0 if not long else None


def _fits(program: Program, layout: Layout, output: int, total: int, leaf: int, axis: int, bias: Broadcastable) -> bool:
    """Whether the leaf has one entry for each of the constant's, on one axis, and the sum is taken where it is."""
    kept, line, after = layout.kept[output], layout.kept[leaf], layout.kept[total]
    if kept is None or line is None or after is None:
        return False
    of_leaf = program.avals[leaf].dtype
    narrow = jnp.promote_types(of_leaf, program.avals[total].dtype) != of_leaf  # the constant would be rounded
    if not jnp.issubdtype(of_leaf, jnp.floating) or narrow or not _alike(kept, after):
        return False
    varies = [i for i, size in enumerate(bias.shape) if size > 1]
    width = sizes(line, program.shape(leaf))[0]
    return width == bias.size and (width == 1 or (varies == [axis] and _alike((kept[axis],), line)))


def _alike(one: KeptIndices, other: KeptIndices) -> bool:
    """Whether the same indices are kept of every axis."""
    pairs = zip(one, other, strict=True)
    return all(a is b if a is None or b is None else np.array_equal(a, b) for a, b in pairs)


def folded(
    program: Program, analysis: Analysis, found: Sequence[Fold], leaves: Sequence[Array]
) -> tuple[Analysis, list[Array]]:
    """The analysis without those constants, and the leaves with them."""
    contractions, small = dict(analysis.contractions), dict(zip(program.leaves, leaves, strict=True))
    for eqn_index, leaf, sign in found:
        bias = contractions[eqn_index].absorbed["bias"].reshape(-1)
        small[leaf] = jnp.asarray(np.asarray(small[leaf]) + sign * bias, small[leaf].dtype)
        contractions[eqn_index] = contractions[eqn_index]._replace(absorbed={})
    return analysis._replace(contractions=contractions), [small[value] for value in program.leaves]
