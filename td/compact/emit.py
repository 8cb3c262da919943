"""Emission: run the equations on the kept indices, with smaller leaves and moved constants."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td.compact.analysis import Analysis, operation, rule_of
from td.compact.loops import LOOPS
from td.compact.rules.base import Request
from td.compact.rules.terms import padded
from td.errors import UserError
from td.program.equations import Body, Equation, Program, is_key
from td.program.indices import Broadcastable, KeptIndices, alike, everything, narrow, sizes, take, take_kept, width
from td.program.simplify import on_device

UNSEEN = (
    "at these sizes the function may compute something else, as where a map is no longer resized or a table ends: "
    "compact with inputs of these sizes, or, for all lengths of a table, with inputs shorter than the table"
)
"""The error where outputs could differ."""

Constants = Callable[[str, Callable[[], Broadcastable | None], Any], Array | None]
"""`(key, compute, dtype)`: a moved constant, None for zero; at the example's sizes `compute` has its value."""


class Copy(NamedTuple):
    """A selection of indices along one axis of a value, and the bytes that it writes."""

    value: int
    axis: int
    size: int


def emit(
    program: Program,
    analysis: Analysis,
    leaves: Sequence[Array],
    inputs: Sequence[Any],
    constants: Constants,
    copies: list[Copy],
) -> list[Array]:
    """The outputs, from smaller leaves; notes the copies."""
    kept, known = analysis.kept, dict(zip(program.leaves, leaves, strict=True))
    for value, array in (*zip(program.inputs, inputs, strict=True), *program.numbers.items()):
        if (wanted := kept[value]) is not None:
            known[value] = narrow(on_device(array, program.avals[value]), everything(program.shape(value)), wanted)

    def fill(key: str, value: int, wanted: KeptIndices) -> Array:
        dtype, shape = program.avals[value].dtype, sizes(wanted, program.shape(value))
        constant = constants(key, lambda: take_kept(analysis.values[value].constant, wanted), dtype)
        return jnp.zeros(shape, dtype) if constant is None else jnp.broadcast_to(constant, shape)

    def demand(key: str, value: int, wanted: KeptIndices) -> Array:
        have = kept[value]
        if have is None:
            return fill(key, value, wanted)
        array, state = known[value], list(have)
        for axis, (held, asked, size) in enumerate(zip(have, wanted, program.shape(value), strict=True)):
            if not alike(held, asked):
                state[axis] = asked
                line = np.arange(size) if asked is None else asked
                places = line if held is None else np.searchsorted(held, line)
                missing = np.zeros(0, int) if held is None else np.setdiff1d(line, held)
                if len(missing):  # constants, concatenated and gathered with the others
                    lines = (*state[:axis], missing, *state[axis + 1 :])
                    array = jnp.concatenate([array, fill(f"{key}/{axis}", value, lines)], axis)
                    absent = width(held, size) + np.searchsorted(missing, line)
                    places = np.where(np.isin(line, missing), absent, places)
                array = take(array, places, axis)
                copies.append(Copy(value, axis, array.size * array.dtype.itemsize))
        return array

    def run(body: Program | Body) -> None:
        for equation in body.equations:
            if any(kept[value] is not None for value in equation.outputs):
                operated: Any = looped if equation.bodies else partial(_operated, program, analysis, demand, constants)
                outputs, have = operated(equation)
                for value, array, held in zip(equation.outputs, outputs, have, strict=True):
                    if (wanted := kept[value]) is not None:
                        known[value] = narrow(array, held, wanted)

    def looped(equation: Equation) -> Any:
        def inner(place: int, arrays: Mapping[int, Array | None], wanted: Sequence[KeptIndices | None]) -> list[Any]:
            body = equation.bodies[place]
            known.update({value: array for value, array in arrays.items() if array is not None})
            run(body)
            return [
                None if lines is None else demand(f"{equation.number}.{place} output {i}", value, lines)
                for i, (value, lines) in enumerate(zip(body.outputs, wanted, strict=True))
            ]

        def asked(key: str, operand: int, lines: KeptIndices | None) -> Array | None:
            return None if lines is None else demand(f"{equation.number}/{key}", equation.inputs[operand], lines)

        return LOOPS[equation.name].emit(equation, kept, asked, inner)

    run(program)
    return [demand(f"output {i}", value, everything(program.shape(value))) for i, value in enumerate(program.outputs)]


def _operated(
    program: Program,
    analysis: Analysis,
    demand: Callable[[str, int, KeptIndices], Array],
    constants: Constants,
    equation: Equation,
) -> tuple[list[Array], list[KeptIndices]]:
    """The outputs of one equation and the indices that they have."""
    number, op = equation.number, operation(program, equation, analysis.sizes)
    contraction = analysis.contractions.get(number)
    if number in analysis.unpadded and padded(op):
        raise UserError(f"{op.name} pads at this input size, not at the example's: compact with inputs of this size")
    absorbed = {} if contraction is None else contraction.absorbed
    request = Request(
        lambda operand, lines: demand(f"{number}/{operand}", equation.inputs[operand], lines),
        lambda name: constants(f"{number}/{name}", lambda: absorbed.get(name), op.dtype),
        () if contraction is None else contraction.used,
    )
    wanted = analysis.kept[equation.outputs[0]] or everything(op.shape)
    array, have = rule_of(equation.name, number in analysis.frozen).emit(op, wanted, request)
    if len(equation.outputs) > 1:
        return list(array), [everything(program.shape(value)) for value in equation.outputs]
    return [array[0] if isinstance(array, list | tuple) else array], [have]


def small_leaves(program: Program, analysis: Analysis, leaves: Sequence[Any]) -> list[Array]:
    """The kept entries of every leaf; of a leaf that nothing needs, none."""

    def small(value: int, leaf: Any) -> Array:
        kept = analysis.kept[value]
        if is_key(jax.dtypes.result_type(leaf)):
            return leaf if kept is None else narrow(leaf, everything(leaf.shape), kept)
        array = np.asarray(leaf)  # a device would compile a program for every shape
        return jnp.asarray(array[..., :0] if kept is None and array.ndim else take_kept(array, kept))

    return [small(value, leaf) for value, leaf in zip(program.leaves, leaves, strict=True)]


class Moved(NamedTuple):
    """Constants of removed entries by the place that uses them: floats that train, others, and zeros."""

    trained: dict[str, Array]
    fixed: dict[str, Array]
    zero: set[str]
    copies: list[Copy]  # that it takes to run the equations on what is left

    @property
    def arrays(self) -> dict[str, Array]:
        """All but the zeros."""
        return {**self.trained, **self.fixed}


def moved_constants(program: Program, analysis: Analysis, leaves: Sequence[Array], inputs: Sequence[Any]) -> Moved:
    """Emit once by shapes alone and record the constants that are requested."""
    moved, stopped = Moved({}, {}, set(), []), _before_while(program)

    def record(key: str, compute: Callable[[], Broadcastable | None], dtype: Any) -> Array | None:
        constant = compute()
        if constant is None or not constant.any():
            moved.zero.add(key)
            return None
        trains = jnp.issubdtype(dtype, jnp.inexact) and key.partition("/")[0].partition(".")[0] not in stopped
        into = moved.trained if trains else moved.fixed
        with jax.ensure_compile_time_eval():
            into[key] = jnp.asarray(constant, dtype)
        return into[key]

    jax.eval_shape(lambda *arrays: emit(program, analysis, leaves, arrays, record, moved.copies), *inputs)
    return moved


def _before_while(program: Program) -> set[str]:
    """Equations whose values reach a `while_loop`, which has no derivative backwards; up to a `stop_gradient`."""
    reached, found = set[int](), set[str]()

    def walk(equations: Sequence[Equation], within: bool) -> None:
        for equation in reversed(equations):
            if within or equation.name == "while" or reached & {*equation.outputs}:
                found.add(str(equation.number))
                reached.update(equation.inputs if equation.name != "stop_gradient" else ())
                for body in equation.bodies:
                    walk(body.equations, True)

    walk(program.equations, False)
    return found


def stored_constants(trained: Mapping[str, Array], moved: Moved) -> Constants:
    """The constants that were recorded."""
    found = {**moved.fixed, **trained}

    def look_up(key: str, compute: Callable[[], Broadcastable | None], dtype: Any) -> Array | None:
        if key not in found and key not in moved.zero:
            raise UserError(UNSEEN)
        return found.get(key)

    return look_up
