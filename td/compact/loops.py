"""Loops and choices: constant propagation and liveness of their bodies, the carry's to a fixed point."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from td.base import Params
from td.compact.values import Value, merged, unknown
from td.program.equations import Body, Equation, Program, source
from td.program.indices import Broadcastable, KeptIndices, any_over
from td.program.trace import MOST_UNROLLED, abstract, trace

MOST_ITERATIONS = 8
"""Iterations after which a carry that still changes counts as live."""

Kept = Mapping[int, KeptIndices | None]
Emitted = tuple[Sequence[Array | None], Sequence[KeptIndices | None]]


Force = Callable[[int, Value], Value]
Computed = Callable[[int], Broadcastable]
Need = Callable[[int, Broadcastable], None]
Run = Callable[[Body], None]
Demand = Callable[[str, int, KeptIndices | None], Array | None]
Emit = Callable[[int, Mapping[int, Array | None], Sequence[KeptIndices | None]], list[Array | None]]


class LoopRule(NamedTuple):
    """Treatment of one primitive with bodies."""

    # `force(output, value)` makes the entries live that are computed although not needed; `run` goes to the outputs.
    forward: Callable[[Equation, dict[int, Value], Force, Run], None]
    # `computed(value)` has flags, to which `need(value, flags)` adds; `run` goes from the outputs of a body.
    backward: Callable[[Equation, Computed, Need, Run], None]
    # `demand(key, operand, indices)` has an operand, `run(place of a body, arrays by input, indices)` the outputs.
    emit: Callable[[Equation, Kept, Demand, Emit], Emitted]


class _Carried(NamedTuple):
    """One value of the carry: the operand, the body's input and output, the loop's result, the condition's input."""

    operand: int
    before: int
    after: int
    result: int
    tested: tuple[int, ...]  # of a while alone


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
    tested = [(value,) for value in condition.inputs[tests:]] if condition else [()] * carried
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
        same += [(one.result, value) for value in one.tested]
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


def _loop_forward(equation: Equation, values: dict[int, Value], force: Force, run: Run) -> None:
    loop = _read(equation)
    for operand, value in loop.same:
        values[value] = values[equation.inputs[operand]]
    for operand, value in loop.sliced:  # live where iterations differ
        whole = values[equation.inputs[operand]]
        values[value] = merged(whole, [0]).map(lambda small: small[0])._replace(known=whole.known)
    for one in loop.carry:
        values[one.before] = values[equation.inputs[one.operand]]
        for value in (one.before, one.result, *one.tested):
            values[one.before] = force(value, values[one.before])
    iteration, changes = 0, True
    while changes:
        run(loop.body)
        changes, iteration = False, iteration + 1
        for one, after in [(one, _join(values[one.before], values[one.after])) for one in loop.carry]:
            before = values[one.before]
            if after.known != before.known or (after.live != before.live).any():
                everywhere = unknown(after.live.ndim)._replace(known=after.known)
                values[one.before], changes = after if iteration <= MOST_ITERATIONS else everywhere, True
    for one in loop.carry:
        values.update(dict.fromkeys((one.result, *one.tested), values[one.before]))
    if loop.condition:
        run(loop.condition)
    for value, result in loop.stacked:
        whole = values[value].map(lambda small: small[None])._replace(known=values[value].known)
        values[result] = force(result, whole)


def _loop_backward(equation: Equation, computed: Computed, need: Need, run: Run) -> None:
    loop = _read(equation)
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
            for value in (one.after, *one.tested):
                need(value, flags)
        for body in equation.bodies:
            run(body)
        for one in loop.carry:
            for value in one.tested:
                need(one.before, computed(value))
        after = [computed(one.before) for one in loop.carry]
        changes = not all(map(np.array_equal, before, after))
    for operand, value in (*loop.same, *((one.operand, one.before) for one in loop.carry)):
        need(equation.inputs[operand], computed(value))
    for operand, value in loop.sliced:
        need(equation.inputs[operand], computed(value)[None])


def _whole_first(lines: KeptIndices | None) -> KeptIndices | None:
    """Indices of a stack from those of what is stacked."""
    return None if lines is None else (None, *lines)


def _loop_emit(equation: Equation, kept: Kept, demand: Demand, run: Emit) -> Emitted:
    loop, params = _read(equation), equation.params

    def taken(operand: int, value: int) -> Array | None:
        return demand(f"{operand}", operand, kept[value])

    same = {value: taken(operand, value) for operand, value in loop.same}
    start = [taken(one.operand, one.before) for one in loop.carry]
    stacks = [demand(f"{operand}", operand, _whole_first(kept[value])) for operand, value in loop.sliced]
    stacked = [None if (lines := kept[result]) is None else lines[1:] for _, result in loop.stacked]
    carried = [kept[one.before] for one in loop.carry]

    def step(carry: list[Array | None], slices: list[Array | None]) -> tuple[list[Array | None], list[Array | None]]:
        arrays = {one.before: array for one, array in zip(loop.carry, carry, strict=True)}
        arrays |= {value: array for (_, value), array in zip(loop.sliced, slices, strict=True)}
        outputs = run(len(equation.bodies) - 1, {**same, **arrays}, [*carried, *stacked])
        return outputs[: len(carry)], outputs[len(carry) :]

    def test(carry: list[Array | None]) -> Any:
        arrays = {value: array for one, array in zip(loop.carry, carry, strict=True) for value in one.tested}
        return run(0, {**same, **arrays}, [()])[0]

    if loop.condition:
        return lax.while_loop(test, lambda carry: step(carry, [])[0], start), carried
    remats = [e.params for e in params["jaxpr"].jaxpr.eqns if e.primitive.name in ("checkpoint", "remat2")]
    if remats:  # their equations are inlined: the whole iteration is rematerialised
        step = jax.checkpoint(step, prevent_cse=remats[0]["prevent_cse"], policy=remats[0]["policy"])
    length = None if jax.tree.leaves(stacks) else params["length"]  # which may be symbolic, as a stack's may
    final, outputs = lax.scan(step, start, stacks, length, params["reverse"], params["unroll"])
    return [*final, *outputs], [*carried, *map(_whole_first, stacked)]


def _choice_forward(equation: Equation, values: dict[int, Value], force: Force, run: Run) -> None:
    which, *operands = equation.inputs
    for body in equation.bodies:
        values.update(zip(body.inputs, [values[operand] for operand in operands], strict=True))
        run(body)
    for place, output in enumerate(equation.outputs):
        joined = reduce(_join, (values[body.outputs[place]] for body in equation.bodies))
        values[output] = force(output, joined._replace(known=joined.known and values[which].known))


def _choice_backward(equation: Equation, computed: Computed, need: Need, run: Run) -> None:
    which, *operands = equation.inputs
    need(which, np.ones((), bool))
    for body in equation.bodies:
        for value, output in zip(body.outputs, equation.outputs, strict=True):
            need(value, computed(output))
        run(body)
        for operand, value in zip(operands, body.inputs, strict=True):
            need(operand, computed(value))


def _choice_emit(equation: Equation, kept: Kept, demand: Demand, run: Emit) -> Emitted:
    wanted, branches = [kept[value] for value in equation.outputs], []
    for place, body in enumerate(equation.bodies):
        keys = ((f"{operand}.{place}", operand, kept[value]) for operand, value in enumerate(body.inputs, 1))
        arrays = dict(zip(body.inputs, [demand(*key) for key in keys], strict=True))
        branches.append(partial(run, place, arrays, wanted))
    which: Any = demand("0", 0, ())
    return lax.switch(jnp.asarray(which, jnp.int32), branches), wanted


_LOOP = LoopRule(_loop_forward, _loop_backward, _loop_emit)
LOOPS = {"scan": _LOOP, "while": _LOOP, "cond": LoopRule(_choice_forward, _choice_backward, _choice_emit)}
"""The rules by the names of primitives."""


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
