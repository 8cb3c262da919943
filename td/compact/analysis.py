"""Which entries are computed: constants forwards, needs backwards."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact.program import Equation, Program
from td.compact.rules import RULES
from td.compact.rules.base import FROZEN, AxisIndices, Contraction, Operation, Rule, evaluate
from td.compact.sizes import Sizes
from td.compact.values import (
    Broadcastable,
    KeptIndices,
    Shape,
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


class Forced(NamedTuple):
    """What is computed although it need not be: indices of values, none for all, and of equations' contracted axes."""

    values: Mapping[int, AxisIndices] = {}
    contracted: Mapping[int, AxisIndices] = {}


class Analysis(NamedTuple):
    """`kept[value]`, None for what is not computed at all; contractions and frozen operations by equation.

    `unpadded`: equations that a constant other than zero has passed because nothing was padded.
    """

    values: dict[int, Value]
    kept: dict[int, KeptIndices | None]
    contractions: dict[int, Contraction]
    frozen: dict[int, str]
    unpadded: frozenset[int]


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
        tuple(sizes.dynamic_axes[value] for value in equation.inputs),
        sizes.dynamic_axes[equation.outputs[0]],
        tuple((other.shape(equation.inputs[0]), other.shape(equation.outputs[0])) for other in sizes.seen)
        if equation.inputs
        else (),
    )


def analyse(program: Program, sizes: Sizes, leaves: Sequence[Any], forced: Forced) -> Analysis:
    """Both passes."""
    values, frozen, unpadded = _forwards(program, sizes, leaves, forced)
    return _backwards(program, sizes, values, frozen, unpadded, forced)


def rule_of(name: str, frozen: bool) -> Rule:
    """The rule of an equation."""
    return FROZEN if frozen else RULES[name]


def _given(array: Any, dynamic_axes: tuple[bool, ...]) -> Value:
    """A number or leaf; keys of random numbers are not looked into."""
    if is_key(jax.dtypes.result_type(array)):
        return unknown(len(dynamic_axes))
    value = number(array)
    settled = settle(value.live, value.constant, dynamic_axes) if any(dynamic_axes) else value
    return settled._replace(known=not settled.live.any())


def _forwards(
    program: Program, sizes: Sizes, leaves: Sequence[Any], forced: Forced
) -> tuple[dict[int, Value], dict[int, str], frozenset[int]]:
    dynamic_axes, unpadded = sizes.dynamic_axes, set()
    values = {value: unknown(len(dynamic_axes[value])) for value in (*program.inputs, *sizes.size_dependent)}
    given = {**program.numbers, **dict(zip(program.leaves, leaves, strict=True))}
    values |= {
        value: _given(array, dynamic_axes[value]) for value, array in given.items() if value not in sizes.size_dependent
    }
    frozen: dict[int, str] = {}
    for eqn_index, equation in enumerate(program.equations):
        inputs, output = [values[value] for value in equation.inputs], equation.outputs[0]
        if len(equation.outputs) > 1:
            frozen[eqn_index] = "has several outputs"
            values |= {value: unknown(len(dynamic_axes[value])) for value in equation.outputs}
            continue
        here = operation(program, equation, sizes)
        rule, known = RULES.get(here.name), all(value.known for value in inputs)
        grows, drawn = any(any(flags) for flags in (here.dynamic_out_axes, *here.dynamic_axes)), is_key(here.dtype)
        if rule is None or not rule.applies(here, inputs):
            frozen[eqn_index] = "has no rule" if rule is None else "is a case that its rule does not cover"
        if known and not grows and eqn_index in frozen and not drawn:
            value = number(evaluate(here, inputs))
        else:
            live, constant = rule_of(here.name, eqn_index in frozen).forward(here, inputs)
            constant = stored_as(constant, here.dtype)
            value = Value(live, constant) if known and not grows else settle(live, constant, dynamic_axes[output])
        known = known and not value.live.any()
        if output in forced.values and not known:
            value = _forced(value, forced.values[output], program.shape(output))
        if _is_unpadded(here, inputs):
            unpadded.add(eqn_index)
        values[output] = value._replace(known=known)
    return values, frozen, frozenset(unpadded)


def _is_unpadded(here: Operation, inputs: Sequence[Value]) -> bool:
    """Whether constants are what they are because nothing is put around them."""
    if here.name == "pad":
        return bool((inputs[0].constant != inputs[1].constant).any()) and not padded(here)
    summed = here.name in ("conv_general_dilated", "reduce_window_sum")
    return summed and bool(inputs[0].constant.any()) and not padded(here)


def padded(here: Operation) -> bool:
    """Whether a convolution or pooling puts zeros around or between entries, or `pad` anything around growing axes."""
    if here.name == "pad":
        config = zip(here.dynamic_out_axes, here.params["padding_config"], strict=True)
        return any(grows and any(widths) for grows, widths in config)
    dilated = here.params.get("lhs_dilation", ())
    return any(low > 0 or high > 0 for low, high in here.params["padding"]) or any(d > 1 for d in dilated)


def _flags(lines: AxisIndices, shape: Shape) -> Broadcastable:
    flags = np.full((1,) * len(shape), not lines)
    for axis, indices in lines.items():
        line = np.zeros(shape[axis], bool)
        line[list(indices)] = True
        flags = flags | on_axis(line, axis, len(shape))
    return flags


def _forced(value: Value, lines: AxisIndices, shape: Shape) -> Value:
    live = value.live | _flags(lines, shape)
    return Value(live, np.where(live, np.zeros((), value.constant.dtype), value.constant))


def _backwards(
    program: Program,
    sizes: Sizes,
    values: dict[int, Value],
    frozen: dict[int, str],
    unpadded: frozenset[int],
    forced: Forced,
) -> Analysis:
    needed: dict[int, Broadcastable] = {
        value: np.ones((1,) * len(program.shape(value)), bool) for value in program.outputs
    }
    contractions: dict[int, Contraction] = {}
    kept: dict[int, KeptIndices | None] = {}

    def computed(value: int) -> Broadcastable:
        """What is needed and not a constant; of what params alone decide, all that is needed."""
        asked = needed.get(value, np.zeros((1,) * len(program.shape(value)), bool))
        if value in forced.values:
            asked = asked | _flags(forced.values[value], program.shape(value))
        return asked if values[value].known else asked & values[value].live

    for eqn_index in range(len(program.equations) - 1, -1, -1):
        equation = program.equations[eqn_index]
        flags = [computed(value) for value in equation.outputs]
        kept |= {v: projected(f, program.shape(v)) for v, f in zip(equation.outputs, flags, strict=True)}
        if not any(flag.any() for flag in flags):
            continue
        inputs = [values[value] for value in equation.inputs]
        here = operation(program, equation, sizes)
        used: KeptIndices = ()
        rule = rule_of(here.name, eqn_index in frozen)
        if rule.contract is not None:
            contractions[eqn_index] = rule.contract(here, inputs, flags[0], forced.contracted.get(eqn_index, {}))
            used = contractions[eqn_index].used
        for value, flag in zip(equation.inputs, rule.backward(here, inputs, flags[0], used), strict=True):
            if flag is not None:
                flag = any_over(flag, [axis for axis, grows in enumerate(sizes.dynamic_axes[value]) if grows])
                needed[value] = needed[value] | flag if value in needed else flag
    for value in (*program.leaves, *program.inputs, *program.numbers):
        kept[value] = projected(computed(value), program.shape(value))
    return Analysis(values, kept, contractions, frozen, unpadded)
