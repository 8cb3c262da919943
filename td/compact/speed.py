"""Channels that are kept for speed: dead, but their removal would copy for longer than it saves."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from td.compact.analysis import Analysis, Forced
from td.compact.emit import Copy
from td.compact.factors import Factor, Factors
from td.compact.forced import added
from td.compact.summary import flops_left
from td.program.equations import Program, is_key
from td.program.indices import Broadcastable, KeptIndices, alike, flags_of, sizes

RATE = 2e11
"""FLOPs a second: convolutions of few channels reach 2.2e11, of many up to 4.7e11, on two cores (docs/cost.md)."""

PASS = 5e10
"""Bytes a second that one elementwise operation writes: about five of them share a pass over memory."""

COPY = 8e9
"""Bytes a second that slices and gathers write. At 4e9 ResNet-32 without half of its units kept channels, and
took 0.73 instead of 0.59 of the dense time."""

LEAST = 2**15
"""Bytes up to which copies cost nothing, as in a first cache."""


ROUNDS = 21
"""Timed calls of each network; medians are compared."""


def seconds(program: Program, analysis: Analysis, copies: Sequence[Copy]) -> float:
    """Estimate the time of a smaller network on a CPU."""
    copied = sum(copy.size for copy in copies if not analysis.values[copy.value].known)
    total = copied / COPY if copied > LEAST else 0.0
    flops = sum(flops_left(program, analysis, equation) for equation in program.equations)
    written = sum(_bytes(program, analysis, value) for equation in program.every for value in equation.outputs)
    return total + flops / RATE + written / PASS


def dense_seconds(program: Program, analysis: Analysis) -> float:
    """Estimate the time of the network before."""
    kept: dict[int, KeptIndices | None] = {v: (None,) * len(program.shape(v)) for v in program.avals}
    return seconds(program, analysis._replace(kept=kept, contractions={}), [])


def everything(program: Program) -> Forced:
    """Force all indices, as where nothing is removed."""
    values = {value: dict[int, list[int]]() for equation in program.every for value in equation.outputs}
    contracted: dict[int, dict[int, list[int]]] = defaultdict(dict)
    for i, k, value, axis in _sums(program):
        contracted[i][k] = [*range(program.shape(value)[axis])]
    return Forced(
        values, contracted, "kept for speed: all channels (with the copies between them the network would be slower)"
    )


def hastened(program: Program, factors: Factors, analysis: Analysis, copies: Sequence[Copy]) -> Forced:
    """Force all values of a factor to the same indices, where that takes less time than the copies between them."""
    values, contracted, channels = dict(analysis.forced.values), dict(analysis.forced.contracted), Counter[int]()
    producers = {value: equation for equation in program.every for value in equation.outputs if not equation.bodies}
    spent: dict[tuple[int, int], int] = Counter()
    every = program.every
    for copy in copies:
        spent[copy.value, copy.axis] += copy.size
    saved = 0
    for places, sums in _shared(program, factors, analysis):
        size = program.shape(places[0][0])[places[0][1]]
        held = {place: flags_of(_line(analysis, *place), size) for place in places}
        summed = {(i, k): flags_of(analysis.contractions[i].used[k], size) for i, k in sums}
        union = np.logical_or.reduce([*held.values(), *summed.values()])
        price, copied = 0.0, sum(spent[place] for place in places)
        for (value, _), flags in held.items():
            grown = union.sum() / flags.sum() - 1
            price += grown * flops_left(program, analysis, producers[value]) / RATE if value in producers else 0
            price += grown * _bytes(program, analysis, value) / PASS
        for (i, _), flags in summed.items():
            price += (union.sum() / max(flags.sum(), 1) - 1) * flops_left(program, analysis, every[i]) / RATE
        if copied > LEAST and copied / COPY > price:
            saved += copied
            for (value, axis), flags in held.items():
                values[value] = added(values.get(value, {}), axis, np.flatnonzero(union).tolist())
                channels[value] += (union & ~flags).sum()
            for i, k in summed:
                contracted[i] = added(contracted.get(i, {}), k, np.flatnonzero(union).tolist())
    total, count = sum(channels.values()), sum(more > 0 for more in channels.values())
    note = f"kept for speed: {total:,} channels of {count} values (their removal would copy {saved / 1e6:.1f} MB)"
    return Forced(values, contracted, note if total else "")


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: Iterable[int]) -> dict[str, list[float]]:
    """Seconds of each function in every round but the first, which compiles."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in rounds:
        # In another order each round: what runs after a large function finds its caches and its memory in disorder.
        for name in np.random.default_rng(number).permutation(list(calls)):
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            if number:
                taken[name].append(time.perf_counter() - start)
    return taken


def fastest(networks: Mapping[str, Callable[..., Any]], inputs: Sequence[Any]) -> tuple[str, str]:
    """The name of the network that takes least time, and a line for the summary."""
    arrays = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, inputs)
    taken = interleaved({name: partial(network, *arrays) for name, network in networks.items()}, range(ROUNDS + 1))
    medians = {name: 1e3 * float(np.median(each)) for name, each in taken.items()}
    best = min(medians, key=lambda name: medians[name])
    return best, f"timed: {', '.join(f'{name} {median:.3g} ms' for name, median in medians.items())}; {best} is kept"


def noted(analysis: Analysis, line: str) -> Analysis:
    """Add a line to what the summary says of speed."""
    return analysis._replace(forced=analysis.forced._replace(note=f"{analysis.forced.note}\n{line}".strip()))


def _sums(program: Program) -> Iterator[tuple[int, int, int, int]]:
    """Equation, number among contracted axes, operand and its axis, of every contracted axis that can be forced."""
    for equation in program.every:
        i = equation.number
        if equation.name == "dot_general":
            for operand, axes in zip(equation.inputs, equation.params["dimension_numbers"][0], strict=True):
                yield from ((i, k, operand, axis) for k, axis in enumerate(axes))
        elif equation.name == "conv_general_dilated" and equation.params["feature_group_count"] == 1:
            yield i, 0, equation.inputs[0], equation.params["dimension_numbers"].lhs_spec[1]


def _shared(
    program: Program, factors: Factors, analysis: Analysis
) -> Iterator[tuple[list[tuple[int, int]], set[tuple[int, int]]]]:
    """Values and axes that share factors but not all indices, and the sums over them; of one reduced axis a value."""
    places: dict[Factor, list[tuple[int, int]]] = defaultdict(list)
    sums: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for i, k, value, axis in _sums(program):
        if i in analysis.contractions:
            sums[value, axis].add((i, k))
    for value, axes in factors.axes.items():
        if analysis.kept.get(value) is not None and not analysis.values[value].known:
            for axis, factor in enumerate(axes):
                places[factor].append((value, axis))
    for factor, found in places.items():
        summed = set[tuple[int, int]]().union(*(sums[place] for place in found))
        lines = [*(_line(analysis, *place) for place in found), *(analysis.contractions[i].used[k] for i, k in summed)]
        others = (line for v, axis in found for a, line in enumerate(analysis.kept[v] or ()) if a != axis)
        if factor and not all(alike(lines[0], line) for line in lines) and all(line is None for line in others):
            yield found, summed


def _line(analysis: Analysis, value: int, axis: int) -> Broadcastable | None:
    kept = analysis.kept[value]
    return None if kept is None else kept[axis]


def _bytes(program: Program, analysis: Analysis, value: int) -> int:
    """The size of a value's kept entries, none of a function of params alone."""
    kept, aval = analysis.kept.get(value), program.avals[value]
    if kept is None or analysis.values[value].known or is_key(aval.dtype):
        return 0
    return math.prod(sizes(kept, aval.shape)) * aval.dtype.itemsize
