"""Loops and choices: constants and needs of their bodies, the carry's to a fixed point; smaller loops."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from td.compact.values import Value, merged, unknown
from td.program.equations import Body, Equation, Program
from td.program.indices import Broadcastable, KeptIndices, any_over

MOST_ITERATIONS = 8
"""Iterations after which a carry that still changes counts as live."""

Kept = Mapping[int, KeptIndices | None]
Emitted = tuple[Sequence[Array | None], Sequence[KeptIndices | None]]


class Propagation(NamedTuple):
    """Constant propagation as far as it is done.

    Attributes:
      values: of all operands; those of bodies and outputs are added.
      force: `(output, value) -> value`, with the entries live that are computed although not needed.
      run: `(body)`, from its inputs to its outputs.
    """

    values: dict[int, Value]
    force: Callable[[int, Value], Value]
    run: Callable[[Body], None]


class Liveness(NamedTuple):
    """Liveness as far as it is done.

    Attributes:
      computed: `(value) -> flags` of the entries that are computed.
      need: `(value, flags)`, more needed entries.
      run: `(body)`, from its outputs to its inputs.
    """

    computed: Callable[[int], Broadcastable]
    need: Callable[[int, Broadcastable], None]
    run: Callable[[Body], None]


class Emission(NamedTuple):
    """Arrays for a loop that is emitted.

    Attributes:
      kept: the computed indices of every value.
      demand: `(key, operand, indices) -> array`, an operand at some indices of every axis; None where these are None.
      run: `(place of the body, arrays by input, indices) -> arrays`, the outputs at these indices.
    """

    kept: Kept
    demand: Callable[[str, int, KeptIndices | None], Array | None]
    run: Callable[[int, Mapping[int, Array | None], Sequence[KeptIndices | None]], list[Array | None]]


class LoopRule(NamedTuple):
    """Treatment of one primitive with bodies."""

    forward: Callable[[Equation, Propagation], None]
    backward: Callable[[Equation, Liveness], None]
    emit: Callable[[Equation, Emission], Emitted]


class _Carried(NamedTuple):
    """One value of the carry: the operand, the body's input and output, the loop's result, the condition's input."""

    operand: int
    before: int
    after: int
    result: int
    tested: int | None


class _Loop(NamedTuple):
    """A scan or while: operands that stay the same and that are sliced, as `(operand, input)`, and stacked outputs."""

    body: Body
    condition: Body | None
    same: list[tuple[int, int]]
    carry: list[_Carried]
    sliced: list[tuple[int, int]]
    stacked: list[tuple[int, int]]


def _read(equation: Equation) -> _Loop:
    params, body, operands = equation.params, equation.bodies[-1], range(len(equation.inputs))
    condition = equation.bodies[0] if equation.name == "while" else None
    tests = params["cond_nconsts"] if condition else 0
    steps = params["body_nconsts"] if condition else params["num_consts"]
    carried = len(equation.outputs) if condition else params["num_carry"]
    first, last = tests + steps, tests + steps + carried
    same = [*zip(operands[tests:first], body.inputs[:steps], strict=True)]
    tested: Sequence[int | None] = condition.inputs[tests:] if condition else [None] * carried
    same += [*zip(operands[:tests], condition.inputs[:tests], strict=True)] if condition else []
    ends = operands[first:last], body.inputs[steps:], body.outputs, equation.outputs, tested
    return _Loop(
        body,
        condition,
        same,
        [_Carried(*line) for line in zip(*(end[:carried] for end in ends), strict=True)],
        [*zip(operands[last:], body.inputs[steps + carried :], strict=True)],
        [*zip(body.outputs[carried:], equation.outputs[carried:], strict=True)],
    )


def correspondences(equation: Equation) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs of a value and one of a body with the same axes, and those where the first has an axis of iterations."""
    inputs, outputs = equation.inputs, equation.outputs
    if equation.name == "cond":
        ends = [((*inputs[1:], *outputs), (*body.inputs, *body.outputs)) for body in equation.bodies]
        return [pair for end in ends for pair in zip(*end, strict=True)], []
    loop = _read(equation)
    same = [(inputs[operand], value) for operand, value in loop.same]
    for one in loop.carry:
        same += [(inputs[one.operand], value) for value in (one.before, one.after, one.result)]
        same += [] if one.tested is None else [(one.result, one.tested)]
    return same, [*((inputs[i], value) for i, value in loop.sliced), *((out, value) for value, out in loop.stacked)]


def counted_slices(program: Program, equation: Equation) -> Iterator[tuple[int, int, int]]:
    """Slices of a value by the counter of a loop, one in each iteration, as a scan has them: `stack[i]`."""
    if equation.name != "scan" or equation.params["reverse"]:
        return
    loop, numbers = _read(equation), program.numbers
    made = {value: e for e in loop.body.equations for value in e.outputs}

    def index(value: int) -> int:
        """The value before conversion, and before a check for numbers below zero."""
        e = made.get(value)
        if e is not None and e.name == "convert_element_type":
            return index(e.inputs[0])
        test = made.get(e.inputs[0]) if e is not None and e.name == "select_n" else None
        if e is None or test is None or test.name != "lt" or numbers.get(test.inputs[1]) != 0:
            return value
        return index(e.inputs[1]) if index(test.inputs[0]) == index(e.inputs[1]) else value

    counters = set()
    for one in loop.carry:
        step, start = made.get(one.after), numbers.get(equation.inputs[one.operand])
        if step is not None and step.name == "add" and start is not None and np.ndim(start) == 0 and start == 0:
            first, second = step.inputs
            counters |= {one.before} if first == one.before and numbers.get(second) == 1 else set()
    for e in loop.body.equations:
        if e.name == "dynamic_slice" and index(e.inputs[1]) in counters:
            whole, part = program.shape(e.inputs[0]), program.shape(e.outputs[0])
            if part == (1, *whole[1:]) and whole[0] == equation.params["length"]:
                yield e.number, e.inputs[0], e.outputs[0]


def _join(one: Value, other: Value) -> Value:
    """Constant where both are the same constant."""
    live = one.live | other.live | (one.constant != other.constant)
    return Value(live, np.where(live, np.zeros((), one.constant.dtype), one.constant), one.known and other.known)


def _loop_forward(equation: Equation, state: Propagation) -> None:
    loop, values = _read(equation), state.values
    for operand, value in loop.same:
        values[value] = values[equation.inputs[operand]]
    for operand, value in loop.sliced:  # live where iterations differ
        whole = values[equation.inputs[operand]]
        values[value] = merged(whole, [0]).map(lambda small: small[0])._replace(known=whole.known)
    for one in loop.carry:
        values[one.before] = values[equation.inputs[one.operand]]
        for value in (one.before, one.result, *([] if one.tested is None else [one.tested])):
            values[one.before] = state.force(value, values[one.before])
    iteration, changes = 0, True
    while changes:
        state.run(loop.body)
        changes, iteration = False, iteration + 1
        for one, after in [(one, _join(values[one.before], values[one.after])) for one in loop.carry]:
            before = values[one.before]
            if after.known != before.known or (after.live != before.live).any():
                everywhere = unknown(after.live.ndim)._replace(known=after.known)
                values[one.before], changes = after if iteration <= MOST_ITERATIONS else everywhere, True
    for one in loop.carry:
        values[one.result] = values[one.before]
        if one.tested is not None:
            values[one.tested] = values[one.before]
    if loop.condition:
        state.run(loop.condition)
    for value, result in loop.stacked:
        whole = values[value].map(lambda small: small[None])._replace(known=values[value].known)
        values[result] = state.force(result, whole)


def _loop_backward(equation: Equation, state: Liveness) -> None:
    loop, computed, need = _read(equation), state.computed, state.need
    for value, result in loop.stacked:
        need(value, any_over(computed(result), [0])[0])
    for one in loop.carry:
        need(one.before, computed(one.result))
    if loop.condition:
        need(loop.condition.outputs[0], np.ones((), bool))
    changes = True
    while changes:
        before = [computed(one.before) for one in loop.carry]
        for one, flags in zip(loop.carry, before, strict=True):
            need(one.after, flags)
            if one.tested is not None:
                need(one.tested, flags)
        for body in equation.bodies:
            state.run(body)
        for one in loop.carry:
            if one.tested is not None:
                need(one.before, computed(one.tested))
        after = [computed(one.before) for one in loop.carry]
        changes = not all(map(np.array_equal, before, after))
    for operand, value in (*loop.same, *((one.operand, one.before) for one in loop.carry)):
        need(equation.inputs[operand], computed(value))
    for operand, value in loop.sliced:
        need(equation.inputs[operand], computed(value)[None])


def _whole_first(lines: KeptIndices | None) -> KeptIndices | None:
    """Indices of a stack from those of what is stacked."""
    return None if lines is None else (None, *lines)


def _loop_emit(equation: Equation, emission: Emission) -> Emitted:
    loop, kept, params = _read(equation), emission.kept, equation.params

    def taken(operand: int, value: int) -> Array | None:
        return emission.demand(f"{operand}", operand, kept[value])

    same = {value: taken(operand, value) for operand, value in loop.same}
    start = [taken(one.operand, one.before) for one in loop.carry]
    stacks = [emission.demand(f"{operand}", operand, _whole_first(kept[value])) for operand, value in loop.sliced]
    stacked = [None if (lines := kept[result]) is None else lines[1:] for _, result in loop.stacked]
    carried = [kept[one.before] for one in loop.carry]

    def step(carry: list[Array | None], slices: list[Array | None]) -> tuple[list[Array | None], list[Array | None]]:
        arrays = {one.before: array for one, array in zip(loop.carry, carry, strict=True)}
        arrays |= {value: array for (_, value), array in zip(loop.sliced, slices, strict=True)}
        outputs = emission.run(len(equation.bodies) - 1, {**same, **arrays}, [*carried, *stacked])
        return outputs[: len(carry)], outputs[len(carry) :]

    def test(carry: list[Array | None]) -> Any:
        arrays = {one.tested: array for one, array in zip(loop.carry, carry, strict=True) if one.tested is not None}
        return emission.run(0, {**same, **arrays}, [()])[0]

    if loop.condition:
        return lax.while_loop(test, lambda carry: step(carry, [])[0], start), carried
    remats = [e.params for e in params["jaxpr"].jaxpr.eqns if e.primitive.name in ("checkpoint", "remat2")]
    if remats:  # their equations are inlined: the whole iteration is rematerialised
        step = jax.checkpoint(step, prevent_cse=remats[0]["prevent_cse"], policy=remats[0]["policy"])
    length = None if jax.tree.leaves(stacks) else params["length"]  # which may be symbolic, as a stack's may
    final, outputs = lax.scan(step, start, stacks, length, params["reverse"], params["unroll"])
    return [*final, *outputs], [*carried, *map(_whole_first, stacked)]


def _choice_forward(equation: Equation, state: Propagation) -> None:
    values, (which, *operands) = state.values, equation.inputs
    for body in equation.bodies:
        values.update(zip(body.inputs, [values[operand] for operand in operands], strict=True))
        state.run(body)
    for place, output in enumerate(equation.outputs):
        joined = reduce(_join, (values[body.outputs[place]] for body in equation.bodies))
        values[output] = state.force(output, joined._replace(known=joined.known and values[which].known))


def _choice_backward(equation: Equation, state: Liveness) -> None:
    which, *operands = equation.inputs
    state.need(which, np.ones((), bool))
    for body in equation.bodies:
        for value, output in zip(body.outputs, equation.outputs, strict=True):
            state.need(value, state.computed(output))
        state.run(body)
        for operand, value in zip(operands, body.inputs, strict=True):
            state.need(operand, state.computed(value))


def _choice_emit(equation: Equation, emission: Emission) -> Emitted:
    kept, wanted, branches = emission.kept, [emission.kept[value] for value in equation.outputs], []
    for place, body in enumerate(equation.bodies):
        keys = ((f"{operand}.{place}", operand, kept[value]) for operand, value in enumerate(body.inputs, 1))
        arrays = dict(zip(body.inputs, [emission.demand(*key) for key in keys], strict=True))
        branches.append(partial(emission.run, place, arrays, wanted))
    which: Any = emission.demand("0", 0, ())
    return lax.switch(jnp.asarray(which, jnp.int32), branches), wanted


_LOOP = LoopRule(_loop_forward, _loop_backward, _loop_emit)
LOOPS = {"scan": _LOOP, "while": _LOOP, "cond": LoopRule(_choice_forward, _choice_backward, _choice_emit)}
"""The rules by the names of primitives."""
