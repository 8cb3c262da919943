"""Axes of an equation's values whose entries correspond, by rules for each primitive."""

from collections.abc import Callable, Sequence
from typing import Any

from td.program.equations import ELEMENTWISE, Equation, Program
from td.program.indices import others

Place = tuple[Any, Any]
"""A value of an equation, by its number among operands and outputs, and an axis of it."""

REDUCTIONS = ("mean", *(f"reduce_{kind}" for kind in ("sum", "max", "min", "prod", "and", "or", "xor")))


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
    elif name in ("squeeze", *REDUCTIONS):
        gone = params["dimensions" if name == "squeeze" else "axes"]
        pairs = [((0, a), (out, b)) for b, a in enumerate(others(len(shapes[0]), *gone))]
        loose = {(0, a) for a in gone}
    elif name == "dot_general":
        pairs = _of_product(params["dimension_numbers"], shapes)
    elif name == "conv_general_dilated":
        pairs = _of_convolution(params, shapes)
    elif name == "gather":
        numbers = params["dimension_numbers"]
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        inner = zip(others(len(shapes[0]), *gone), numbers.offset_dims, strict=True)
        pairs = [((0, a), (out, b)) for a, b in inner if a not in numbers.start_index_map]
    elif name in MOVED and len(equation.outputs) == 1:
        moved = MOVED[name](params, shapes)
        pairs = [((i, a), (out, a)) for i in range(out) for a in range(len(shapes[i])) if a not in moved]
    return {pair for pair in pairs if _size(shapes, pair[0]) == _size(shapes, pair[1])}, loose


def _size(shapes: Sequence[Sequence[Any]], place: Place) -> Any:
    return shapes[place[0]][place[1]]


def _of_product(numbers: Any, shapes: Sequence[Sequence[Any]]) -> list[tuple[Place, Place]]:
    contracted, batch = numbers
    pairs = [((0, a), (1, b)) for sides in (contracted, batch) for a, b in zip(*sides, strict=True)]
    place = len(batch[0])
    for side in (0, 1):
        pairs += [((side, a), (2, i)) for i, a in enumerate(batch[side])]
        free = others(len(shapes[side]), *batch[side], *contracted[side])
        pairs += [((side, a), (2, place + i)) for i, a in enumerate(free)]
        place += len(free)
    return pairs


def _of_convolution(params: Any, shapes: Sequence[Sequence[Any]]) -> list[tuple[Place, Place]]:
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


def _padded(params: Any, shapes: Sequence[Sequence[Any]]) -> list[int]:
    return [axis for axis, config in enumerate(params["padding_config"]) if tuple(config) != (0, 0, 0)]


def _resized(params: Any, shapes: Sequence[Sequence[Any]]) -> list[int]:
    return [axis for axis, (n, m) in enumerate(zip(shapes[0], shapes[-1], strict=True)) if n != m]


def _updated(params: Any, shapes: Sequence[Sequence[Any]]) -> list[int]:
    return [axis for axis, (n, m) in enumerate(zip(*shapes[:2], strict=True)) if n != m]


def _windowed(params: Any, shapes: Sequence[Sequence[Any]]) -> list[int]:
    return [
        axis
        for axis, size in enumerate(params["window_dimensions"])
        if size != 1 or shapes[0][axis] != shapes[-1][axis]
    ]


MOVED: dict[str, Callable[[Any, Sequence[Sequence[Any]]], Sequence[int]]] = {
    "pad": _padded,
    "slice": _resized,
    "dynamic_slice": _resized,
    "dynamic_update_slice": _updated,
    "concatenate": lambda params, shapes: [params["dimension"]],
    "rev": lambda params, shapes: params["dimensions"],
    "sort": lambda params, shapes: [params["dimension"]],
    **{f"cum{kind}": lambda params, shapes: [params["axis"]] for kind in ("sum", "prod", "max", "min", "logsumexp")},
    **{f"reduce_window_{kind}": _windowed for kind in ("sum", "max", "min")},
}
"""Axes whose entries change places; the others are those of the output."""
