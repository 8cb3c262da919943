"""Axes of an equation's values whose entries correspond, by rules for each primitive."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from td.program.equations import ELEMENTWISE, Equation, Program
from td.program.indices import Shape, others

Place = tuple[Any, Any]
"""A value of an equation, by its number among operands and outputs, and an axis of it."""

REDUCTIONS = tuple(f"reduce_{kind}" for kind in ("sum", "max", "min", "prod", "and", "or", "xor"))
CUMULATIVE = tuple(f"cum{kind}" for kind in ("sum", "prod", "max", "min", "logsumexp"))
WINDOWS = ("reduce_window_sum", "reduce_window_max", "reduce_window_min")


class Side(NamedTuple):
    """Axes of one operand of a `dot_general`, and the output's axis of every batch and free axis, in order."""

    batch: list[int]
    contracted: list[int]
    free: list[int]
    placed: dict[int, int]

    @property
    def rows(self) -> list[int]:
        return [*self.batch, *self.contracted]


def sides_of(dimension_numbers: Any, shapes: Sequence[Shape]) -> tuple[Side, Side]:
    """Read the dimension numbers of a `dot_general` with operands of some shapes."""
    contracted, batch = dimension_numbers
    start, sides = len(batch[0]), []
    for side in (0, 1):
        free = others(len(shapes[side]), *batch[side], *contracted[side])
        placed = {axis: i for i, axis in enumerate(batch[side])} | {axis: start + i for i, axis in enumerate(free)}
        sides.append(Side(list(batch[side]), list(contracted[side]), free, placed))
        start += len(free)
    return sides[0], sides[1]


def taken_whole(params: Any, shape: Shape) -> dict[int, int]:
    """By axis of an array, of which a gather takes all entries, that of the output."""
    numbers = params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    inner = zip(others(len(shape), *gone), numbers.offset_dims, strict=True)
    return {axis: int(place) for axis, place in inner if params["slice_sizes"][axis] == shape[axis]}


def links_of(program: Program, equation: Equation) -> tuple[set[tuple[Place, Place]], set[Place]]:
    """Pairs of axes whose entries correspond, in order of the values, and axes whose entries are alike to it."""
    shapes = [program.shape(value) for value in (*equation.inputs, *equation.outputs)]
    name, params, out = equation.name, equation.params, len(equation.inputs)
    loose: set[Place] = set()
    pairs: list[tuple[Place, Place]] = []
    if name in ELEMENTWISE and len(equation.outputs) == 1:
        whole = range(len(shapes[out]))
        pairs = [((i, a), (out, a)) for i in range(out) for a in whole if len(shapes[i]) == len(whole)]
    elif name == "broadcast_in_dim":
        pairs = [((0, a), (out, b)) for a, b in enumerate(params["broadcast_dimensions"])]
        loose = {(out, b) for b in range(len(shapes[out]))} - {
            (out, b) for a, b in enumerate(params["broadcast_dimensions"]) if shapes[0][a] > 1
        }
    elif name == "transpose":
        pairs = [((0, a), (out, b)) for b, a in enumerate(params["permutation"])]
    elif name in ("squeeze", "mean", *REDUCTIONS):
        gone = params["dimensions" if name == "squeeze" else "axes"]
        pairs = [((0, a), (out, b)) for b, a in enumerate(others(len(shapes[0]), *gone))]
        loose = {(0, a) for a in gone}
    elif name == "dot_general":
        sides = sides_of(params["dimension_numbers"], shapes)
        pairs = [((0, a), (1, b)) for a, b in zip(*((*side.contracted, *side.batch) for side in sides), strict=True)]
        pairs += [((i, a), (out, b)) for i, side in enumerate(sides) for a, b in side.placed.items()]
    elif name == "conv_general_dilated":
        pairs = _of_convolution(params, shapes)
    elif name == "gather":
        started = params["dimension_numbers"].start_index_map
        pairs = [((0, a), (out, b)) for a, b in taken_whole(params, shapes[0]).items() if a not in started]
    elif name in MIXED and len(equation.outputs) == 1:
        moved = MIXED[name](params, shapes)
        pairs = [((i, a), (out, a)) for i in range(out) for a in range(len(shapes[i])) if a not in moved]
    return {pair for pair in pairs if _size(shapes, pair[0]) == _size(shapes, pair[1])}, loose


def _size(shapes: Sequence[Shape], place: Place) -> Any:
    return shapes[place[0]][place[1]]


def _of_convolution(params: Any, shapes: Sequence[Shape]) -> list[tuple[Place, Place]]:
    """Channels of ungrouped and of depthwise convolutions."""
    spec, groups = params["dimension_numbers"], params["feature_group_count"]
    entering, leaving, (outer, inner, *_) = spec.lhs_spec[1], spec.out_spec[1], spec.rhs_spec
    pairs = [((0, spec.lhs_spec[0]), (2, spec.out_spec[0]))] if params["batch_group_count"] == 1 else []
    if params["batch_group_count"] == 1 and groups in (1, shapes[2][leaving]):
        pairs.append(((1, outer), (2, leaving)))
        if groups == 1:
            pairs.append(((0, entering), (1, inner)))
        elif shapes[0][entering] == groups:
            pairs += [((0, entering), (1, outer)), ((0, entering), (2, leaving))]
    return pairs


def _resized(params: Any, shapes: Sequence[Shape]) -> list[int]:
    return [axis for axis, (n, m) in enumerate(zip(shapes[0], shapes[-1], strict=True)) if n != m]


def windowed(params: Any, shapes: Sequence[Shape]) -> list[int]:
    """The axes along which entries meet, or are left out."""
    sizes = [params[key] for key in ("window_dimensions", "window_strides", "base_dilation")]
    ends = enumerate(map(tuple, params["padding"]))
    return [axis for axis, end in ends if end != (0, 0) or any(each[axis] != 1 for each in sizes)]


MIXED: dict[str, Callable[[Any, Sequence[Shape]], Sequence[int]]] = {
    "pad": lambda params, shapes: [a for a, ends in enumerate(params["padding_config"]) if tuple(ends) != (0, 0, 0)],
    "slice": _resized,
    "dynamic_slice": _resized,
    "dynamic_update_slice": lambda params, shapes: _resized(params, shapes[:2]),
    "concatenate": lambda params, shapes: [params["dimension"]],
    "rev": lambda params, shapes: params["dimensions"],
    "sort": lambda params, shapes: [params["dimension"]],
    **dict.fromkeys(CUMULATIVE, lambda params, shapes: [params["axis"]]),
    **dict.fromkeys(WINDOWS, windowed),
}
"""By primitive the axes along which entries change places or meet; the others are those of the output."""
