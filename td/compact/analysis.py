"""Constant propagation from inputs to outputs, then liveness from outputs to inputs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from td.compact.loops import LOOPS
from td.compact.rules import RULES
from td.compact.rules.base import FROZEN, AxisIndices, Contraction, Operation, Rule
from td.compact.rules.terms import padded
from td.compact.values import Value, joined, number, on_host, settle, unknown
from td.program.equations import Body, Equation, Program, is_key
from td.program.indices import Broadcastable, KeptIndices, Shape, any_over, flags_of, on_axis, projected
from td.program.sizes import Sizes


class Forced(NamedTuple):
    """Entries that are computed although not needed: indices of values, none for all, and of contracted axes."""

    values: Mapping[int, AxisIndices] = {}
    contracted: Mapping[int, AxisIndices] = {}
    note: str = ""  # what is kept for speed, for the summary


class Analysis(NamedTuple):
    """Result of both passes, over the values and equations of bodies too."""

    values: dict[int, Value]
    computed: dict[int, Broadcastable]  # flags of every value's entries that are needed and no constants
    kept: dict[int, KeptIndices | None]  # indices of every value that are computed; None where nothing is
    contractions: dict[int, Contraction]  # by equation
    frozen: dict[int, str]  # by equation, why it stays whole
    unpadded: set[int]  # equations that pass on a constant other than zero because nothing is padded
    sizes: Sizes
    forced: Forced
    folds: Mapping[int, int] = {}  # by equation, the leaf that has absorbed its constant


def operation(program: Program, equation: Equation, sizes: Sizes) -> Operation:
    """An equation of one output with its shapes."""
    inputs, output = equation.inputs, equation.outputs[0]
    return Operation(
        equation.name,
        equation.bind,
        equation.params,
        tuple(program.shape(value) for value in inputs),
        program.shape(output),
        tuple(program.avals[value].dtype for value in inputs),
        program.avals[output].dtype,
        tuple(sizes.dynamic_axes[value] for value in inputs),
        sizes.dynamic_axes[output],
        tuple((other.shape(inputs[0]), other.shape(output)) for other in sizes.seen) if inputs else (),
    )


def analyse(program: Program, sizes: Sizes, leaves: Sequence[Any], forced: Forced) -> Analysis:
    """Run both passes."""
    values, frozen, unpadded = _propagate(program, sizes, leaves, forced)
    computed, contractions = _liveness(program, sizes, values, frozen, forced)
    kept = {value: projected(flags, program.shape(value)) for value, flags in computed.items()}
    return Analysis(values, computed, kept, contractions, frozen, unpadded, sizes, forced)


def rule_of(name: str, frozen: bool) -> Rule:
    """The rule of an equation."""
    return FROZEN if frozen else RULES[name]


def _propagate(
    program: Program, sizes: Sizes, leaves: Sequence[Any], forced: Forced
) -> tuple[dict[int, Value], dict[int, str], set[int]]:
    frozen: dict[int, str] = {}
    unpadded: set[int] = set()
    given = {**program.numbers, **dict(zip(program.leaves, leaves, strict=True))}
    values = {value: unknown(len(axes)) for value, axes in sizes.dynamic_axes.items()}
    values |= {v: _given(a, sizes.dynamic_axes[v]) for v, a in given.items() if v not in sizes.size_dependent}

    def force(output: int, value: Value) -> Value:
        if output not in forced.values:
            return value
        live = value.live | _flags(forced.values[output], program.shape(output))
        return joined(live, np.where(live, np.zeros((), value.constant.dtype), value.constant), value.known)

    def propagate(equation: Equation) -> None:
        op, inputs = operation(program, equation, sizes), [values[value] for value in equation.inputs]
        if op.name not in RULES:
            frozen[equation.number] = "has no rule"
        elif not RULES[op.name].applies(op, inputs):
            frozen[equation.number] = "is a case that its rule does not cover"
        (output,), value = equation.outputs, _output(op, inputs, equation.number in frozen)
        if _is_unpadded(op, inputs):
            unpadded.add(equation.number)
        values[output] = value if value.known else force(output, value)

    def run(body: Program | Body) -> None:
        for equation in body.equations:
            frozen.pop(equation.number, None)
            unpadded.discard(equation.number)
            if equation.bodies:
                LOOPS[equation.name].forward(equation, values, force, run)
            elif len(equation.outputs) > 1:
                frozen[equation.number] = "has several outputs"
            else:
                propagate(equation)
            if equation.bodies or equation.number in frozen:
                values.update(_determined(program, equation, sizes, values))

    run(program)
    return values, frozen, unpadded


def _given(array: Any, dynamic_axes: tuple[bool, ...]) -> Value:
    """The value of a number or leaf."""
    if is_key(jax.dtypes.result_type(array)):
        return unknown(len(dynamic_axes))
    value = settle(number(array), dynamic_axes) if any(dynamic_axes) else number(array)
    return value._replace(known=not value.live.any())


def _output(op: Operation, values: Sequence[Value], frozen: bool) -> Value:
    known, differ = all(value.known for value in values), any(value.live.any() for value in values)
    fixed = known and not differ and not any(any(flags) for flags in (op.dynamic_out_axes, *op.dynamic_axes))
    live, constant, _ = rule_of(op.name, frozen).forward(op, values)
    if not is_key(op.dtype):  # as the network stores it: halves rounded, integers wrapped
        constant = on_host(constant.astype(op.dtype, copy=False))
    value = joined(live, constant)
    value = value if fixed else settle(value, op.dynamic_out_axes)
    # Within a loop, what differs from one iteration to the next is live and known.
    return value._replace(known=known and (differ or not value.live.any()))


def _determined(program: Program, equation: Equation, sizes: Sizes, values: Mapping[int, Value]) -> dict[int, Value]:
    """The outputs of whole known operands; none where these are live or a size depends on the inputs'."""
    every = (*equation.inputs, *equation.outputs)
    fixed = not any(any(sizes.dynamic_axes[v]) or is_key(program.avals[v].dtype) for v in every)
    if not fixed or any(not values[v].known or values[v].live.any() for v in equation.inputs):
        return {}
    operands = [
        jnp.asarray(np.broadcast_to(values[v].constant, program.shape(v)), program.avals[v].dtype)
        for v in equation.inputs
    ]
    found = map(number, jax.tree.leaves(equation.bind(*operands, **equation.params)))
    return dict(zip(equation.outputs, found, strict=True))


def _is_unpadded(op: Operation, inputs: Sequence[Value]) -> bool:
    """Test for an output that is constant because nothing is padded."""
    if op.name == "pad":
        return bool((inputs[0].constant != inputs[1].constant).any()) and not padded(op)
    summed = op.name in ("conv_general_dilated", "reduce_window_sum")
    return summed and bool(inputs[0].constant.any()) and not padded(op)


def _flags(lines: AxisIndices, shape: Shape) -> Broadcastable:
    flags = np.full((1,) * len(shape), not lines)
    for axis, indices in lines.items():
        flags = flags | on_axis(flags_of(indices, shape[axis]), axis, len(shape))
    return flags


def _liveness(
    program: Program, sizes: Sizes, values: dict[int, Value], frozen: Mapping[int, str], forced: Forced
) -> tuple[dict[int, Broadcastable], dict[int, Contraction]]:
    needed: dict[int, Broadcastable] = {v: np.ones((1,) * len(program.shape(v)), bool) for v in program.outputs}
    contractions: dict[int, Contraction] = {}
    found: dict[int, Broadcastable] = {}

    def computed(value: int) -> Broadcastable:
        """Flags of entries that are needed and live, or needed and a function of params alone."""
        flags = needed.get(value, np.zeros((1,) * len(program.shape(value)), bool))
        if value in forced.values:
            flags = flags | _flags(forced.values[value], program.shape(value))
        return flags if values[value].known else flags & values[value].live

    def need(value: int, flags: Broadcastable) -> None:
        flags = any_over(flags, np.flatnonzero(sizes.dynamic_axes[value]).tolist())
        needed[value] = needed.get(value, False) | flags

    def keep(given: Iterable[int]) -> None:
        found.update({value: computed(value) for value in given})

    def pass_on(equation: Equation) -> None:
        if equation.bodies:
            LOOPS[equation.name].backward(equation, computed, need, run)
            return
        number, flags = equation.number, computed(equation.outputs[0])
        op, inputs = operation(program, equation, sizes), [values[value] for value in equation.inputs]
        rule = rule_of(op.name, number in frozen)
        used: KeptIndices = ()
        if rule.contract is not None:
            contractions[number] = rule.contract(op, inputs, flags, forced.contracted.get(number, {}))
            used = contractions[number].used
        for value, flag in zip(equation.inputs, rule.backward(op, inputs, flags, used), strict=True):
            if flag is not None:
                need(value, flag)

    def run(body: Program | Body) -> None:
        for equation in reversed(body.equations):
            keep(equation.outputs)
            if any(computed(value).any() for value in equation.outputs):
                pass_on(equation)
        keep(body.inputs)

    run(program)
    keep((*program.leaves, *program.numbers))
    return found, contractions
