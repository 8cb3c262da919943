"""Which entries are computed: constants forwards, needs backwards."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact.program import Equation, Program
from td.compact.rule import FROZEN, Contraction, Lines, Operation, Rule, evaluate
from td.compact.sizes import Sizes
from td.compact.table import RULES
from td.compact.values import (
    Kept,
    Shape,
    Small,
    Value,
    any_over,
    is_key,
    number,
    on_axis,
    projected,
    settle,
    stored_as,
    unknown,
)


class Pins(NamedTuple):
    """What is computed although it need not be: indices of values, none for all, and of equations' contracted axes."""

    values: Mapping[int, Lines] = {}
    contracted: Mapping[int, Lines] = {}


class Analysis(NamedTuple):
    """`kept[value]`, None for what is not computed at all; contractions and frozen operations by equation.

    `even`: equations that a constant other than zero has passed because nothing was padded.
    """

    values: dict[int, Value]
    kept: dict[int, Kept | None]
    contractions: dict[int, Contraction]
    frozen: dict[int, str]
    even: frozenset[int]


def operation(program: Program, equation: Equation, sizes: Sizes) -> Operation:
    """An equation of one output with its shapes."""
    avals = [program.avals[value] for value in (*equation.inputs, equation.outputs[0])]
    return Operation(
        equation.name,
        equation.bind,
        equation.params,
        tuple(tuple(aval.shape) for aval in avals[:-1]),
        tuple(avals[-1].shape),
        tuple(aval.dtype for aval in avals[:-1]),
        avals[-1].dtype,
        tuple(sizes.free[value] for value in equation.inputs),
        sizes.free[equation.outputs[0]],
        tuple((other.shape(equation.inputs[0]), other.shape(equation.outputs[0])) for other in sizes.seen)
        if equation.inputs
        else (),
    )


def analyse(program: Program, sizes: Sizes, leaves: Sequence[Any], pins: Pins) -> Analysis:
    """Both passes."""
    values, frozen, even = _forwards(program, sizes, leaves, pins)
    return _backwards(program, sizes, values, frozen, even, pins)


def rule_of(name: str, frozen: bool) -> Rule:
    """The rule of an equation."""
    return FROZEN if frozen else RULES[name]


def _given(array: Any, free: tuple[bool, ...]) -> Value:
    """A number or leaf; keys of random numbers are not looked into."""
    if is_key(jax.dtypes.result_type(array)):
        return unknown(len(free))
    value = number(array)
    settled = settle(value.live, value.constant, free) if any(free) else value
    return settled._replace(known=not settled.live.any())


def _forwards(
    program: Program, sizes: Sizes, leaves: Sequence[Any], pins: Pins
) -> tuple[dict[int, Value], dict[int, str], frozenset[int]]:
    free, even = sizes.free, set()
    values = {value: unknown(len(free[value])) for value in (*program.inputs, *sizes.written)}
    given = {**program.numbers, **dict(zip(program.leaves, leaves, strict=True))}
    values |= {value: _given(array, free[value]) for value, array in given.items() if value not in sizes.written}
    frozen: dict[int, str] = {}
    for place, equation in enumerate(program.equations):
        inputs, output = [values[value] for value in equation.inputs], equation.outputs[0]
        if len(equation.outputs) > 1:
            frozen[place] = "has several outputs"
            values |= {value: unknown(len(free[value])) for value in equation.outputs}
            continue
        here = operation(program, equation, sizes)
        rule, known = RULES.get(here.name), all(value.known for value in inputs)
        grows, drawn = any(any(flags) for flags in (here.grows, *here.free)), is_key(here.dtype)
        if rule is None or not rule.applies(here, inputs):
            frozen[place] = "has no rule" if rule is None else "is a case that its rule does not cover"
        if known and not grows and place in frozen and not drawn:
            value = number(evaluate(here, inputs))
        else:
            live, constant = rule_of(here.name, place in frozen).forward(here, inputs)
            constant = stored_as(constant, here.dtype)
            value = Value(live, constant) if known and not grows else settle(live, constant, free[output])
        known = known and not value.live.any()
        if output in pins.values and not known:
            value = _pinned(value, pins.values[output], program.shape(output))
        if _is_even(here, inputs):
            even.add(place)
        values[output] = value._replace(known=known)
    return values, frozen, frozenset(even)


def _is_even(here: Operation, inputs: Sequence[Value]) -> bool:
    """Whether constants are what they are because nothing is put around them."""
    if here.name == "pad":
        return bool((inputs[0].constant != inputs[1].constant).any()) and not padded(here)
    summed = here.name in ("conv_general_dilated", "reduce_window_sum")
    return summed and bool(inputs[0].constant.any()) and not padded(here)


def padded(here: Operation) -> bool:
    """Whether a convolution or pooling puts zeros around or between entries, or `pad` anything around growing axes."""
    if here.name == "pad":
        config = zip(here.grows, here.params["padding_config"], strict=True)
        return any(grows and any(widths) for grows, widths in config)
    dilated = here.params.get("lhs_dilation", ())
    return any(low > 0 or high > 0 for low, high in here.params["padding"]) or any(d > 1 for d in dilated)


def _flags(lines: Lines, shape: Shape) -> Small:
    flags = np.full((1,) * len(shape), not lines)
    for axis, indices in lines.items():
        line = np.zeros(shape[axis], bool)
        line[list(indices)] = True
        flags = flags | on_axis(line, axis, len(shape))
    return flags


def _pinned(value: Value, lines: Lines, shape: Shape) -> Value:
    live = value.live | _flags(lines, shape)
    return Value(live, np.where(live, np.zeros((), value.constant.dtype), value.constant))


def _backwards(
    program: Program,
    sizes: Sizes,
    values: dict[int, Value],
    frozen: dict[int, str],
    even: frozenset[int],
    pins: Pins,
) -> Analysis:
    needed: dict[int, Small] = {value: np.ones((1,) * len(program.shape(value)), bool) for value in program.outputs}
    contractions: dict[int, Contraction] = {}
    kept: dict[int, Kept | None] = {}

    def computed(value: int) -> Small:
        """What is needed and not a constant; of what params alone decide, all that is needed."""
        asked = needed.get(value, np.zeros((1,) * len(program.shape(value)), bool))
        if value in pins.values:
            asked = asked | _flags(pins.values[value], program.shape(value))
        return asked if values[value].known else asked & values[value].live

    for place in range(len(program.equations) - 1, -1, -1):
        equation = program.equations[place]
        flags = [computed(value) for value in equation.outputs]
        kept |= {v: projected(f, program.shape(v)) for v, f in zip(equation.outputs, flags, strict=True)}
        if not any(flag.any() for flag in flags):
            continue
        inputs = [values[value] for value in equation.inputs]
        here = operation(program, equation, sizes)
        used: Kept = ()
        rule = rule_of(here.name, place in frozen)
        if rule.contract is not None:
            contractions[place] = rule.contract(here, inputs, flags[0], pins.contracted.get(place, {}))
            used = contractions[place].used
        for value, flag in zip(equation.inputs, rule.backward(here, inputs, flags[0], used), strict=True):
            if flag is not None:
                flag = any_over(flag, [axis for axis, grows in enumerate(sizes.free[value]) if grows])
                needed[value] = needed[value] | flag if value in needed else flag
    for value in (*program.leaves, *program.inputs, *program.numbers):
        kept[value] = projected(computed(value), program.shape(value))
    return Analysis(values, kept, contractions, frozen, even)
