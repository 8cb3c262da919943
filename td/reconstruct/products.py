"""Products of entries of leaves with something that depends on the inputs, as matrices."""

import math
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from td.program.equations import Equation, Program
from td.program.links import sides_of

Entries = np.ndarray
"""Numbers of entries, counted over all leaves."""

AsMatrix = Callable[[Any], Any]


class Product(NamedTuple):
    """A product `[stack, rows, fan_in] x [stack, fan_in, units]`, the second one made of entries of leaves."""

    place: int  # of its first equation, among those that depend on the inputs
    equations: list[Equation]  # the product, and the addition of its bias
    inputs: int  # number of the value that is multiplied
    output: int  # number of the last equation's output
    entries: Entries  # `[stack, fan_in, units]`, with the bias as last row
    biased: bool
    rows: AsMatrix  # of the inputs
    columns: AsMatrix  # of the outputs


def find_products(program: Program, live: Sequence[Equation], inputs: set[int]) -> list[Product]:
    """Find products whose entries nothing else reads, in order of execution; `inputs` are values that are live."""
    found = _arranged(program)
    uses = _count_uses(program, live, inputs, found)
    products = []
    for place, equation in enumerate(live):
        side = next((i for i, value in enumerate(equation.inputs) if value in found), None)
        if equation.name not in FORMS or side is None or equation.inputs[1 - side] not in inputs:
            continue
        if not jnp.issubdtype(program.avals[equation.outputs[0]].dtype, jnp.floating):
            continue  # complex ones
        entries = found[equation.inputs[side]]
        forms = FORMS[equation.name](program, equation, side)
        if forms is None or not _alone(entries, uses):
            continue
        as_kernel, rows, columns = forms
        entries, equations, output = as_kernel(entries), [equation], equation.outputs[0]
        following = [other for other in live[place + 1 :] if output in other.inputs]
        bias = None if output in program.outputs else _bias(following, output, found, columns)
        if bias is not None and _alone(bias, uses):
            entries, equations = np.concatenate([entries, bias], axis=1), [equation, *following]
        last, biased = equations[-1].outputs[0], len(equations) > 1
        products.append(Product(place, equations, equation.inputs[1 - side], last, entries, biased, rows, columns))
    return products


def _alone(entries: Entries, uses: np.ndarray) -> bool:
    """Test that nothing else reads some entries."""
    return bool((uses[entries] == 1).all()) and np.unique(entries).size == entries.size


def _bias(readers: Sequence[Equation], output: int, found: Mapping[int, Entries], columns: AsMatrix) -> Entries | None:
    """Entries that are added to the units alone, `[stack, 1, units]`, if nothing else reads the product."""
    names, added = [equation.name for equation in readers], [v for e in readers for v in e.inputs if v != output]
    if names not in (["add"], ["add_any"]) or len(added) != 1 or added[0] not in found:
        return None
    every = columns(found[added[0]])
    return every[:, :1] if (every == every[:, :1]).all() else None


def _broadcast(equation: Equation, entries: Entries) -> Entries:
    """A view: biases and scales are as large as activations."""
    shape = [1] * len(equation.params["shape"])
    for axis, size in zip(equation.params["broadcast_dimensions"], entries.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(entries.reshape(shape), equation.params["shape"])


MOVES = {*"broadcast_in_dim reshape rev slice squeeze transpose concatenate dynamic_slice gather".split()}  # noqa: SIM905
"""Operations that move entries."""

CASTS = {"convert_element_type", "copy", "copy_p", "reduce_precision", "stop_gradient"}
"""Operations that keep all entries."""

LARGEST_NUMBER = 2**20
"""Entries up to which whole numbers, as of a loop's counter, are computed."""


def _arranged(program: Program) -> dict[int, Entries]:
    """The entries of every value that is an arrangement of floating leaves."""
    found: dict[int, Entries] = {}
    start = 0
    for value in program.leaves:
        size = math.prod(program.shape(value))
        if jnp.issubdtype(program.avals[value].dtype, jnp.floating):
            found[value] = start + np.arange(size, dtype=np.int32).reshape(program.shape(value))
        start += size
    numbers = dict(program.numbers)
    known: Mapping[int, Any] = ChainMap(found, numbers)
    for equation in program.equations:
        name, inputs, (output, *others) = equation.name, equation.inputs, equation.outputs
        moved = inputs if name == "concatenate" else inputs[:1]
        if not known.keys() >= {*inputs} or others:
            continue
        if name in MOVES | CASTS and found.keys() >= {*moved}:
            moved_entries = _moved(equation, [known[value] for value in inputs])
            if moved_entries.min(initial=0) >= 0:  # else filled, where an index is out of range
                found[output] = moved_entries
        elif numbers.keys() >= {*inputs} and _is_index(program.avals[output]):
            numbers[output] = equation.bind(*(numbers[value] for value in inputs), **equation.params)
    return found


def _is_index(aval: Any) -> bool:
    whole = jnp.issubdtype(aval.dtype, jnp.integer) or jnp.issubdtype(aval.dtype, jnp.bool_)
    return whole and math.prod(aval.shape) <= LARGEST_NUMBER


def _moved(equation: Equation, operands: Sequence[Any]) -> Entries:
    if equation.name in CASTS:
        return operands[0]
    if equation.name == "broadcast_in_dim":
        return _broadcast(equation, operands[0])
    return np.asarray(equation.bind(*operands, **equation.params))


def _count_uses(
    program: Program, live: Sequence[Equation], inputs: set[int], found: Mapping[int, Entries]
) -> np.ndarray:
    """Count the equations that read each entry next to something live; computed leaves count twice."""
    ends = np.cumsum([0, *(math.prod(program.shape(value)) for value in program.leaves)]).tolist()
    leaves = {value: {number} for number, value in enumerate(program.leaves)}
    for equation in program.equations:
        of = set().union(*(leaves.get(value, set()) for value in equation.inputs))
        leaves |= {} if inputs & set(equation.outputs) else dict.fromkeys(equation.outputs, of)
    uses = np.zeros(ends[-1], np.int32)
    for equation in live:
        for value in set(equation.inputs) & set(leaves):
            if value in found:
                once = tuple(slice(None) if step else slice(1) for step in found[value].strides)
                uses[np.unique(found[value][once])] += 1
            else:
                for leaf in leaves[value]:
                    uses[ends[leaf] : ends[leaf + 1]] += 2
    return uses


def _dot(program: Program, equation: Equation, side: int) -> tuple[AsMatrix, AsMatrix, AsMatrix]:
    """Axes of a `dot_general`."""
    shapes = tuple(program.shape(value) for value in equation.inputs)
    sides = sides_of(equation.params["dimension_numbers"], shapes)
    own, other = sides[side], sides[1 - side]
    stack = math.prod(shapes[side][axis] for axis in own.batch)
    fan_in = math.prod(shapes[side][axis] for axis in own.contracted)
    units = math.prod(shapes[side][axis] for axis in own.free)
    places = [*range(len(own.batch)), *(other.placed[a] for a in other.free), *(own.placed[a] for a in own.free)]
    return (
        lambda kernel: kernel.transpose([*own.rows, *own.free]).reshape(stack, fan_in, units),
        lambda x: x.transpose([*other.batch, *other.free, *other.contracted]).reshape(stack, -1, fan_in),
        lambda y: y.transpose(places).reshape(stack, -1, units),
    )


def _conv(program: Program, equation: Equation, side: int) -> tuple[AsMatrix, AsMatrix, AsMatrix] | None:
    """Patches of a convolution, a group of channels apart from the others."""
    params, groups = equation.params, equation.params["feature_group_count"]
    numbers, shape = params["dimension_numbers"], program.shape(equation.inputs[1])
    if side == 0 or params["batch_group_count"] != 1:
        return None
    out, inner, *window = numbers.rhs_spec
    offsets = list(np.ndindex(*(shape[axis] for axis in window)))
    units, fan_in = shape[out] // groups, shape[inner] * len(offsets)
    sizes = [program.shape(equation.outputs[0])[axis] for axis in numbers.out_spec[2:]]

    def last(spec: Sequence[int]) -> list[int]:
        """Channels last."""
        return [spec[0], *spec[2:], spec[1]]

    def rows(x: Any) -> Any:
        x = x.transpose(last(numbers.lhs_spec))
        padding = [(*ends, step - 1) for ends, step in zip(params["padding"], params["lhs_dilation"], strict=True)]
        x = lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *padding, (0, 0, 0)])
        strides = (1, *params["window_strides"], 1)
        starts = ((0, *np.multiply(offset, params["rhs_dilation"]).tolist(), 0) for offset in offsets)
        spans = [(size - 1) * stride + 1 for size, stride in zip(sizes, params["window_strides"], strict=True)]
        each = [lax.slice(x, at, np.add(at, (x.shape[0], *spans, x.shape[-1])).tolist(), strides) for at in starts]
        x = jnp.stack(each, axis=-2).reshape(-1, len(offsets), groups, shape[inner])
        return x.transpose(2, 0, 1, 3).reshape(groups, -1, fan_in)

    return (
        lambda kernel: kernel.transpose([*window, inner, out]).reshape(fan_in, groups, units).transpose(1, 0, 2),
        rows,
        lambda y: y.transpose(last(numbers.out_spec)).reshape(-1, groups, units).transpose(1, 0, 2),
    )


FORMS: dict[str, Callable[..., tuple[AsMatrix, AsMatrix, AsMatrix] | None]] = {
    "dot_general": _dot,
    "conv_general_dilated": _conv,
}
"""By primitive: a kernel, its inputs and its outputs as matrices."""
