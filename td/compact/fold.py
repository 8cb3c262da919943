"""Constants absorbed by a leaf: a bias, or the mean of a norm, that follows."""

from collections import Counter
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td.compact.analysis import Analysis
from td.program.equations import Equation, Program
from td.program.indices import Broadcastable, alike, sizes

CARRIERS = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type")


def folded(program: Program, analysis: Analysis, leaves: Sequence[Array]) -> tuple[Analysis, list[Array]]:
    """Add the constants of sums to leaves that their outputs meet, in an addition or subtraction, and nothing else."""
    contractions, small = dict(analysis.contractions), dict(zip(program.leaves, leaves, strict=True))
    uses = Counter([*program.outputs, *(value for equation in program.equations for value in equation.inputs)])
    producers = {value: equation for equation in program.equations for value in equation.outputs}
    consumers: dict[int, Equation] = {value: e for e in program.equations for value in e.inputs}
    folds: dict[int, int] = {}
    for equation in program.equations:
        contraction = analysis.contractions.get(equation.number)
        if contraction is None or "bias" not in contraction.absorbed:
            continue
        output, bias = equation.outputs[0], contraction.absorbed["bias"]
        while uses[output] == 1 and output in consumers and consumers[output].name == "transpose":
            bias = bias.transpose(consumers[output].params["permutation"])
            output = consumers[output].outputs[0]
        total = consumers.get(output)
        if uses[output] != 1 or total is None or total.name not in ("add", "sub"):
            continue
        side = total.inputs.index(output)
        leaf, axis = _leaf(program, producers, uses, total.inputs[1 - side])
        if leaf in folds.values() or axis is None or (total.name == "sub" and side == 1):
            continue
        if _fits(program, analysis, bias, (output, total.outputs[0], leaf), axis):
            folds[equation.number] = leaf
            bias = contraction.absorbed["bias"].reshape(-1) * (1 if total.name == "add" else -1)
            small[leaf] = jnp.asarray(np.asarray(small[leaf]) + bias, small[leaf].dtype)
            contractions[equation.number] = contraction._replace(absorbed={})
    return analysis._replace(contractions=contractions, folds=folds), [small[value] for value in program.leaves]


def _leaf(program: Program, producers: dict[int, Equation], uses: Counter[int], value: int) -> tuple[int, int | None]:
    """The leaf of one axis that a value is, but for its shape, and the value's axis with its entries, if any."""
    carriers: list[Equation] = []
    while value in producers and producers[value].name in CARRIERS and uses[value] == 1:
        carriers.insert(0, producers[value])
        value = producers[value].inputs[0]
    axis = 0 if value in program.leaves and uses[value] == 1 and len(program.shape(value)) == 1 else None
    for carrier in carriers:
        axis = None if axis is None else _carried(program, carrier, axis)
    return value, axis


def _carried(program: Program, carrier: Equation, axis: int) -> int | None:
    """The axis of a carrier's output that has the entries of its operand's; None where there are several."""
    if carrier.name == "broadcast_in_dim":
        return int(carrier.params["broadcast_dimensions"][axis])
    if carrier.name == "squeeze":
        return axis - sum(gone < axis for gone in carrier.params["dimensions"])
    if carrier.name == "convert_element_type":
        return axis
    before, after = program.shape(carrier.inputs[0]), program.shape(carrier.outputs[0])
    long = [i for i, size in enumerate(after) if size != 1]
    if any(size != 1 for i, size in enumerate(before) if i != axis) or len(long) > 1:
        return None
    return long[0] if long else 0


def _fits(program: Program, analysis: Analysis, bias: Broadcastable, values: tuple[int, int, int], axis: int) -> bool:
    """Test for one entry of the leaf for each of the constant's, on one axis, and a sum of the same indices."""
    _, total, leaf = values
    kept, after, line = (analysis.kept[value] for value in values)
    if kept is None or line is None or after is None:
        return False
    dtype = program.avals[leaf].dtype
    narrow = jnp.promote_types(dtype, program.avals[total].dtype) != dtype  # the constant would be rounded
    if not jnp.issubdtype(dtype, jnp.floating) or narrow or not all(map(alike, kept, after)):
        return False
    varies = [i for i, size in enumerate(bias.shape) if size > 1]
    width = sizes(line, program.shape(leaf))[0]
    return width == bias.size and (width == 1 or (varies == [axis] and alike(kept[axis], line[0])))
