"""Factors of the axes of values: two axes share one where an operation treats their entries alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from td.compact.loops import correspondences
from td.program.equations import ELEMENTWISE, Equation, Program, every_of, is_key
from td.program.indices import blocks, others
from td.program.sizes import Sizes

Factor = tuple[Any, ...]
"""The factors of one axis, the slowest first; none for an axis of size 1."""

Place = tuple[Any, Any]
"""A value of an equation, by its number among operands and outputs, and an axis of it."""

REDUCTIONS = ("mean", *(f"reduce_{kind}" for kind in ("sum", "max", "min", "prod", "and", "or", "xor")))


class Factors:
    """Factors of a program; those of axes that no rule names are fixed.

    Attributes:
      sizes: of every factor.
      axes: for every value the factors of its axes.
      fixed: factors whose entries some operation tells apart.
    """

    def __init__(self, program: Program, sizes: Sizes) -> None:
        self.sizes: list[int] = []
        self._parts: dict[int, Factor] = {}  # of a factor that was split, or united with another
        self._iterations: dict[int, Factor] = {}  # of the loop that a value of its body is in
        self._links: list[tuple[Equation, set[tuple[Place, Place]]]] = []
        axes = {value: [self._new(size) for size in aval.shape] for value, aval in program.avals.items()}
        self.fixed = {f for value in (*program.inputs, *program.outputs) for axis in axes[value] for f in axis}
        for value, number in program.numbers.items():
            self.fixed.update(sum((axes[value][axis] for axis in _varying(number)), ()))
        for equation in program.every:
            values = (*equation.inputs, *equation.outputs)
            if equation.bodies:
                self._loop(equation, axes)
                continue
            if equation.name == "reshape":
                self._reshape(values, axes, program, sizes)
                continue
            links, loose = _links(program, equation)
            for (one, axis), (other, place) in links:
                self._unite(axes[values[one]][axis], axes[values[other]][place])
            named = {place for link in links for place in link} | loose
            for slot, value in enumerate(values):
                self.fixed.update(sum((f for axis, f in enumerate(axes[value]) if (slot, axis) not in named), ()))
            self._links.append((equation, links))
        self.axes = {value: [self._now(factor) for factor in found] for value, found in axes.items()}
        self.fixed = {*self._now(tuple(self.fixed))}

    def within(self) -> dict[int, Factor]:
        """For every factor that is not fixed, those by whose entries its own may be arranged differently."""
        found: dict[int, set[int]] = {}
        for value, axes in self.axes.items():
            flat = sum(axes, self._now(self._iterations.get(value, ())))
            once = {factor for factor in flat if flat.count(factor) == 1}
            for factor in {*flat} - self.fixed:
                found[factor] = found.get(factor, once) & once - {factor}
        for equation, links in self._links:
            values = [self.axes[value] for value in (*equation.inputs, *equation.outputs)]
            around = {*self._now(self._iterations.get(equation.outputs[0], ()))}
            for (one, axis), (other, _) in links:
                for factor in (f for f in values[one][axis] if found.get(f)):
                    here, there = (_axis_of(values[slot]) for slot in (one, other))
                    alike = {f for f in found[factor] if ((one, here.get(f)), (other, there.get(f))) in links}
                    found[factor] = alike | (found[factor] & around)
        return {factor: tuple(sorted(rest)) for factor, rest in found.items()}

    def _reshape(
        self, values: Sequence[int], axes: Mapping[int, Sequence[Factor]], program: Program, sizes: Sizes
    ) -> None:
        """Unite what is mapped to each other at every size; what is mixed with a dynamic axis is fixed."""
        before, after = values
        seen = [(other.shape(before), other.shape(after)) for other in sizes.seen]
        for old, new in blocks(program.shape(before), program.shape(after), seen):
            one, other = (sum((axes[v][a] for a in each), ()) for v, each in ((before, old), (after, new)))
            dynamic = any(sizes.dynamic_axes[v][a] for v, each in ((before, old), (after, new)) for a in each)
            if dynamic and (len(old), len(new)) != (1, 1):
                self.fixed.update((*one, *other))
            else:
                self._unite(one, other)

    def _loop(self, equation: Equation, axes: Mapping[int, Sequence[Factor]]) -> None:
        """Unite what goes in and out of a body; the iterations of a scan may have arrangements of their own."""
        same, stacked = correspondences(equation)
        for one, other in same:
            for whole, part in zip(axes[one], axes[other], strict=True):
                self._unite(whole, part)
        for one, other in stacked:
            for whole, part in zip(axes[one][1:], axes[other], strict=True):
                self._unite(whole, part)
        for one, _ in stacked:
            self._unite(axes[stacked[0][0]][0], axes[one][0])
            self.fixed.update(axes[one][0])
        inner = [e for body in equation.bodies for e in every_of(body.equations) if stacked]
        for value in {value for e in inner for value in (*e.inputs, *e.outputs)}:
            self._iterations[value] = (*self._iterations.get(value, ()), *axes[stacked[0][0]][0])

    def _new(self, size: Any) -> Factor:
        if size == 1:
            return ()
        self.sizes.append(int(size))
        return (len(self.sizes) - 1,)

    def _now(self, factors: Factor) -> Factor:
        return sum((self._now(self._parts[f]) if f in self._parts else (f,) for f in factors), ())

    def _unite(self, one: Factor, other: Factor) -> None:
        """Split both to common factors; where their sizes have none, all of them are fixed."""
        left, right = list(self._now(one)), list(self._now(other))
        while left and right:
            (a, *left), (b, *right) = self._now(tuple(left)), self._now(tuple(right))
            small, large = (a, b) if self.sizes[a] <= self.sizes[b] else (b, a)
            if a == b:
                continue
            if not self.sizes[small] or self.sizes[large] % self.sizes[small]:
                self.fixed.update((a, b, *left, *right))
                return
            rest = self._new(self.sizes[large] // self.sizes[small])
            self._parts[large] = (small, *rest)
            left, right = ([*rest, *left], right) if large == a else (left, [*rest, *right])
        self.fixed.update((*left, *right))


def _varying(number: Any) -> list[int]:
    """The axes along which a number in the function differs."""
    if is_key(jax.dtypes.result_type(number)):
        return [*range(np.ndim(number))]
    array = np.asarray(number)
    return [axis for axis, size in enumerate(array.shape) if size > 1 and (array != np.take(array, [0], axis)).any()]


def _axis_of(axes: Sequence[Factor]) -> dict[int, int]:
    return {factor: axis for axis, factors in enumerate(axes) for factor in factors}


def _links(program: Program, equation: Equation) -> tuple[set[tuple[Place, Place]], set[Place]]:
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
    "concatenate": lambda params, shapes: [params["dimension"]],
    "rev": lambda params, shapes: params["dimensions"],
    "sort": lambda params, shapes: [params["dimension"]],
    **{f"cum{kind}": lambda params, shapes: [params["axis"]] for kind in ("sum", "prod", "max", "min", "logsumexp")},
    **{f"reduce_window_{kind}": _windowed for kind in ("sum", "max", "min")},
}
"""Axes whose entries change places; the others are those of the output."""
