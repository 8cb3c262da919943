"""Factors of the axes of values: two axes share one where an operation treats their entries alike."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact.loops import correspondences, counted_slices
from td.program.equations import Equation, Program, every_of, is_key
from td.program.indices import blocks
from td.program.links import Place, links_of
from td.program.sizes import Sizes

Factor = tuple[Any, ...]
"""The factors of one axis, the slowest first; none for an axis of size 1."""


class Branch(NamedTuple):
    """A slice, whose entries may have places of their own, unlike those of other slices of the same value."""

    value: int
    part: int
    outer: Factor  # of the value, along which it is cut
    inner: Factor  # of the slice, for the entries of `outer` in it
    start: int  # of these
    end: int
    pairs: Mapping[int, int] = {}  # by factor of the slice that of the value


class Factors:
    """Factors of a program; those of axes that no rule names are fixed."""

    axes: dict[int, list[Factor]]  # for every value the factors of its axes
    within: dict[int, set[int]]  # for every factor that is not fixed those by whose entries it may be arranged

    def __init__(self, program: Program, sizes: Sizes) -> None:
        self._program = program
        self.sizes: list[int] = []  # of every factor
        self._parts: dict[int, Factor] = {}  # of a factor that was split, or united with another
        self._iterations: dict[int, Factor] = {}  # of the loop that a value of its body is in
        self._links: list[tuple[Equation, set[tuple[Place, Place]]]] = []
        self._counted: set[int] = set()  # equations that select a layer by the counter of a loop
        self.branches: list[Branch] = []  # slices with arrangements of their own
        cuts = _cuts(program, sizes)
        self._first = axes = {value: [self._new(n) for n in aval.shape] for value, aval in program.avals.items()}
        # Factors whose entries some operation tells apart.
        self.fixed = {f for value in (*program.inputs, *program.outputs) for axis in axes[value] for f in axis}
        for value, number in program.numbers.items():
            self.fixed.update(sum((axes[value][axis] for axis in _varying(number)), ()))
        alike: set[tuple[int, int]] = set()  # values and axes along which an equation has repeated its operand
        for equation in program.every:
            values = (*equation.inputs, *equation.outputs)
            if equation.bodies:
                self._loop(equation)
            elif equation.name == "reshape":
                self._reshape(values, sizes)
            elif equation.number in cuts:
                self._cut(equation, *cuts[equation.number])
            else:
                links, loose = links_of(program, equation)
                named = {place for link in links for place in link} | loose
                links = {link for link in links if not any((values[slot], axis) in alike for slot, axis in link)}
                for (one, axis), (other, place) in links:
                    self._unite(axes[values[one]][axis], axes[values[other]][place])
                alike |= {(values[slot], axis) for slot, axis in loose if slot == len(equation.inputs)}
                for slot, value in enumerate(values):
                    self.fixed.update(sum((f for axis, f in enumerate(axes[value]) if (slot, axis) not in named), ()))
                self._links.append((equation, links))
        self._settle()

    def _settle(self) -> None:
        """Split values and their slices alike, and unite them where places do not depend on where the slice lies."""
        while True:
            before = len(self._parts)
            self.branches = [b._replace(pairs=self._paired(b)) for b in self.branches]
            if before != len(self._parts):
                continue
            self.axes = {value: [self.now(factor) for factor in found] for value, found in self._first.items()}
            self.fixed = {*self.now(tuple(self.fixed))}
            self.within = self._within()
            apart = list(self._dependent())
            if not apart:
                return
            for one, other in apart:
                self._unite((one,), (other,))

    def _paired(self, branch: Branch) -> dict[int, int]:
        """The factors of a slice and of its value that correspond."""
        pairs = {factor: factor for factor in self.now(self._iterations.get(branch.part, ()))}
        for whole, part in zip(self._first[branch.value], self._first[branch.part], strict=True):
            rest = tuple(f for f in self.now(whole) if f not in self.now(branch.outer))
            own = tuple(f for f in self.now(part) if f not in self.now(branch.inner))
            self._unite(rest, own, split=True)
            for one, other in zip(self.now(rest), self.now(own), strict=False):
                if self.sizes[one] == self.sizes[other]:  # else both are fixed
                    for known, paired in pairs.items():
                        if known == other or paired == one:
                            self._unite((known, paired), (other, one))
                    pairs[other] = one
        return pairs

    def _dependent(self) -> Iterator[tuple[int, int]]:
        """Pairs of factors to unite: of a slice and its value, or of slices that share entries."""
        spans: dict[int, dict[tuple[Factor, int, int], int]] = {}
        for b in self.branches:
            outer, inner = self.now(b.outer), self.now(b.inner)
            for part, whole in ((part, whole) for part, whole in b.pairs.items() if part != whole):
                known, span = spans.setdefault(whole, {}), (outer, b.start, b.end)
                others = (other for other in known if other != span)
                crosses = any(o != outer or (start < b.end and b.start < end) for o, start, end in others)
                simple = len(outer) == 1 and len(inner) <= 1 and part not in spans and not crosses
                if not simple or outer[0] not in self.within.get(whole, ()):
                    yield part, whole
                elif known.setdefault(span, part) != part:
                    yield part, known[span]

    def _within(self) -> dict[int, set[int]]:
        """For every factor that is not fixed, those by whose entries its own may be arranged differently."""
        found: dict[int, set[int]] = {}
        for value, axes in self.axes.items():
            flat = sum(axes, ())
            flat += tuple(factor for factor in self.now(self._iterations.get(value, ())) if factor not in flat)
            once = {factor for factor in flat if flat.count(factor) == 1}
            for factor in {*flat} - self.fixed:
                found[factor] = found.get(factor, once) & once - {factor}
        for equation, links in self._links:
            values = [self.axes[value] for value in (*equation.inputs, *equation.outputs)]
            around = {*self.now(self._iterations.get(equation.outputs[0], ()))}
            for (one, axis), (other, place) in links:
                for factor in (f for f in values[one][axis] if found.get(f) and f in values[other][place]):
                    here, there = (_axis_of(values[slot]) for slot in (one, other))
                    inner = around if equation.number in self._counted else around - here.keys() - there.keys()
                    alike = {f for f in found[factor] if ((one, here.get(f)), (other, there.get(f))) in links}
                    found[factor] = alike | (found[factor] & inner)
        for b in self.branches:
            for part, whole in b.pairs.items():
                if part != whole and part in found:
                    alike = {own for own, other in b.pairs.items() if other in found.get(whole, ())}
                    found[part] &= alike | {*self.now(b.inner)}
        return found

    def _cut(self, equation: Equation, axis: int, unit: int, start: int) -> None:
        """Split the axis along which a slice cuts into blocks, of which it takes some."""
        (value,), (part,), program, axes = equation.inputs, equation.outputs, self._program, self._first
        outer, inner = (self._new(program.shape(v)[axis] // unit) for v in (value, part))
        self._unite(axes[value][axis], (*outer, *self._new(unit)))
        self._unite(axes[part][axis], (*inner, *self._new(unit)))
        self.fixed.update((*outer, *inner))
        self._links.append((equation, {((0, a), (1, a)) for a in range(len(program.shape(part))) if a != axis}))
        end = start + program.shape(part)[axis]
        self.branches.append(Branch(value, part, outer, inner, start // unit, end // unit))

    def _reshape(self, values: Sequence[int], sizes: Sizes) -> None:
        """Unite what is mapped to each other at every size; what is mixed with a dynamic axis is fixed."""
        (before, after), program, axes = values, self._program, self._first
        seen = [(other.shape(before), other.shape(after)) for other in sizes.seen]
        for old, new in blocks(program.shape(before), program.shape(after), seen):
            one, other = (sum((axes[v][a] for a in each), ()) for v, each in ((before, old), (after, new)))
            dynamic = any(sizes.dynamic_axes[v][a] for v, each in ((before, old), (after, new)) for a in each)
            if dynamic and (len(old), len(new)) != (1, 1):
                self.fixed.update((*one, *other))
            else:
                self._unite(one, other)

    def _loop(self, equation: Equation) -> None:
        """Unite what goes in and out of a body; the iterations of a scan may have arrangements of their own."""
        (same, stacked), axes = correspondences(equation), self._first
        for one, other in same:
            for whole, part in zip(axes[one], axes[other], strict=True):
                self._unite(whole, part)
        for number, one, other in counted_slices(self._program, equation):
            self._counted.add(number)
            stacked.append((one, other))
        for one, other in stacked:
            for whole, part in zip(axes[one][:0:-1], axes[other][::-1], strict=False):
                self._unite(whole, part)
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

    def now(self, factors: Factor) -> Factor:
        """The factors that they were split into, or united with."""
        return sum((self.now(self._parts[f]) if f in self._parts else (f,) for f in factors), ())

    def _unite(self, one: Factor, other: Factor, split: bool = False) -> None:
        """Split both to common factors, which are united if not only split; without any, all of them are fixed."""
        left, right = list(self.now(one)), list(self.now(other))
        while left and right:
            (a, *left), (b, *right) = self.now(tuple(left)), self.now(tuple(right))
            small, large = (a, b) if self.sizes[a] <= self.sizes[b] else (b, a)
            if a == b or (split and self.sizes[a] == self.sizes[b]):
                continue
            if not self.sizes[small] or self.sizes[large] % self.sizes[small]:
                self.fixed.update((a, b, *left, *right))
                return
            rest = self._new(self.sizes[large] // self.sizes[small])
            first = self._new(self.sizes[small]) if split else (small,)
            self._parts[large] = (*first, *rest)
            left, right = ([*rest, *left], right) if large == a else (left, [*rest, *right])
        self.fixed.update((*left, *right))


def _cuts(program: Program, sizes: Sizes) -> dict[int, tuple[int, int, int]]:
    """By slice along one axis that is not dynamic: the axis, the size of its blocks, and the first entry."""
    found: dict[int, tuple[int, int, int]] = {}
    bounds: dict[Place, list[int]] = {}
    for equation in program.every:
        if equation.name == "slice" and {*(equation.params["strides"] or ())} <= {1}:
            value, part = *equation.inputs, *equation.outputs
            pairs = enumerate(zip(program.shape(value), program.shape(part), strict=True))
            axes = [axis for axis, (size, taken) in pairs if size != taken]
            if (
                len(axes) == 1
                and 0 not in program.shape(part)
                and not any(sizes.dynamic_axes[v][axes[0]] for v in (value, part))
            ):
                start, end = (int(equation.params[f"{end}_indices"][axes[0]]) for end in ("start", "limit"))
                bounds.setdefault((value, axes[0]), [program.shape(value)[axes[0]]]).extend((start, end))
                found[equation.number] = axes[0], value, start
    return {number: (axis, math.gcd(*bounds[value, axis]), start) for number, (axis, value, start) in found.items()}


def _varying(number: Any) -> list[int]:
    """The axes along which a number in the function differs."""
    if is_key(jax.dtypes.result_type(number)):
        return [*range(np.ndim(number))]
    array = np.asarray(number)
    return [axis for axis, size in enumerate(array.shape) if size > 1 and (array != np.take(array, [0], axis)).any()]


def _axis_of(axes: Sequence[Factor]) -> dict[int, int]:
    return {factor: axis for axis, factors in enumerate(axes) for factor in factors}
