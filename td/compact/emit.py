"""The equations once more, on smaller arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td.compact.analysis import operation, padded, rule_of
from td.compact.program import Equation, Program
from td.compact.rules.base import Request, everything, narrow, sizes, take
from td.compact.sizes import Sizes
from td.compact.values import KeptIndices, Shape, width
from td.errors import UserError


class Layout(NamedTuple):
    """What emission must know: `kept` of values (None: a constant), `used` indices of contracted axes, by equation.

    Values and equations that are not named are whole.
    """

    kept: Mapping[int, KeptIndices | None]
    used: Mapping[int, KeptIndices]
    frozen: frozenset[int]
    unpadded: frozenset[int]
    sizes: Sizes


class Constants(NamedTuple):
    """Where constants come from. `fill(key, value, lines)`: entries of a value; `absorbed(equation, name)`."""

    fill: Callable[[str, int, KeptIndices], Array | None]
    absorbed: Callable[[int, str], Array | None]


def emit(
    program: Program, layout: Layout, leaves: Sequence[Array], inputs: Sequence[Any], constants: Constants
) -> list[Array]:
    """The outputs, from smaller leaves."""
    known: dict[int, Array] = dict(zip(program.leaves, leaves, strict=True))
    for value, array in (*zip(program.inputs, inputs, strict=True), *program.numbers.items()):
        kept = _kept(program, layout, value)
        if kept is not None:
            known[value] = narrow(jnp.asarray(array), everything(program.shape(value)), kept)

    def demand(key: str, value: int, wanted: KeptIndices) -> Array:
        kept = _kept(program, layout, value)
        if kept is None:
            return _filled(program, value, key, wanted, constants)
        return _aligned(known[value], value, kept, wanted, key, program.shape(value), constants)

    for eqn_index, equation in enumerate(program.equations):
        asked = [_kept(program, layout, value) for value in equation.outputs]
        if all(one is None for one in asked):
            continue
        outputs, have = _run(program, layout, eqn_index, equation, asked[0], demand, constants)
        for value, array, held, wanted in zip(equation.outputs, outputs, have, asked, strict=True):
            if wanted is not None:
                known[value] = narrow(array, held, wanted)
    return [
        demand(f"output {eqn_index}", value, everything(program.shape(value)))
        for eqn_index, value in enumerate(program.outputs)
    ]


def _kept(program: Program, layout: Layout, value: int) -> KeptIndices | None:
    return layout.kept.get(value, everything(program.shape(value)))


def _run(
    program: Program,
    layout: Layout,
    eqn_index: int,
    equation: Equation,
    wanted: KeptIndices | None,
    demand: Callable[[str, int, KeptIndices], Array],
    constants: Constants,
) -> tuple[list[Array], list[KeptIndices]]:
    """One equation: its outputs and the indices that they have."""
    here = operation(program, equation, layout.sizes)
    if eqn_index in layout.unpadded and padded(here):
        raise UserError(f"at this size of the inputs {here.name} pads anew: compact with inputs of this size")
    request = Request(
        lambda operand, lines: demand(f"{eqn_index}/{operand}", equation.inputs[operand], lines),
        lambda name: constants.absorbed(eqn_index, name),
        layout.used.get(eqn_index, everything(here.shapes[0]) if here.shapes else ()),
    )
    asked = everything(here.shape) if wanted is None else wanted
    array, have = rule_of(equation.name, eqn_index in layout.frozen).emit(here, asked, request)
    if len(equation.outputs) > 1:
        return list(array), [everything(program.shape(value)) for value in equation.outputs]
    return [array[0] if isinstance(array, list | tuple) else array], [have]


def _filled(program: Program, value: int, key: str, wanted: KeptIndices, constants: Constants) -> Array:
    """A value that is constant everywhere."""
    shape, constant = sizes(wanted, program.shape(value)), constants.fill(key, value, wanted)
    if constant is None:
        return jnp.zeros(shape, program.avals[value].dtype)
    return jnp.broadcast_to(constant, shape)


def _aligned(
    array: Array, value: int, have: KeptIndices, wanted: KeptIndices, key: str, shape: Shape, constants: Constants
) -> Array:
    """Other indices than there are: those left out are constants, put beside the others and gathered with them."""
    state = list(have)
    for axis, (held, asked) in enumerate(zip(have, wanted, strict=True)):
        if (held is None and asked is None) or (held is not None and asked is not None and np.array_equal(held, asked)):
            continue
        state[axis] = asked
        line = np.arange(shape[axis]) if asked is None else asked
        missing = np.zeros(0, int) if held is None else np.setdiff1d(line, held)
        places = line if held is None else np.searchsorted(held, line)
        if len(missing):
            lines = (*state[:axis], missing, *state[axis + 1 :])
            fill, beside = constants.fill(f"{key}/{axis}", value, lines), list(array.shape)
            beside[axis] = len(missing)
            fill = jnp.zeros(beside, array.dtype) if fill is None else jnp.broadcast_to(fill, beside)
            array = jnp.concatenate([array, fill], axis)
            absent = np.isin(line, missing)
            places = np.where(absent, width(held, shape[axis]) + np.searchsorted(missing, line), places)
        array = take(array, places, axis)
    return array
