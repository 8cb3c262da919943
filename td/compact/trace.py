"""A function as one flat list of equations: calls inlined, dead code left out, the same list at every input size."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from td.compact.custom import resizable
from td.compact.program import Equation, Program
from td.compact.rules.elementwise import CUSTOM
from td.compact.small_maps import by_platform, covers

INLINED = {"jit", "pjit", "closed_call", "core_call", *CUSTOM, "checkpoint", "remat2"}
"""Calls that compute what their inner function computes."""

UNCHANGED = {"name", "sharding_constraint", "optimization_barrier"}
"""Operations that return their operands; in a smaller network they are left out."""


def _split(operand: Any, axis: int, sizes: Sequence[int]) -> list[Any]:
    ends = np.cumsum(sizes)
    return [
        jax.lax.slice_in_dim(operand, int(end - size), int(end), axis=axis)
        for size, end in zip(sizes, ends, strict=True)
    ]


def _unstack(operand: Any, axis: int) -> list[Any]:
    parts = _split(operand, axis, [1] * operand.shape[axis])
    return [jax.lax.squeeze(part, (axis,)) for part in parts]


def _stack(*operands: Any, axis: int) -> list[Any]:
    return [jax.lax.concatenate([jax.lax.expand_dims(operand, (axis,)) for operand in operands], axis)]


def _tile(operand: Any, reps: Sequence[int]) -> list[Any]:
    shape = [size for pair in zip(reps, operand.shape, strict=True) for size in pair]
    repeated = jax.lax.broadcast_in_dim(operand, shape, range(1, len(shape), 2))
    return [jax.lax.reshape(repeated, [times * size for times, size in zip(reps, operand.shape, strict=True)])]


EXPANDED: dict[str, Callable[..., list[Any]]] = {"split": _split, "stack": _stack, "tile": _tile, "unstack": _unstack}
"""Operations that are rewritten as others, which have a rule."""


def abstract(tree: Any) -> Any:
    """Shapes and dtypes in place of arrays."""

    def described(leaf: Any) -> jax.ShapeDtypeStruct:
        weak = getattr(leaf, "weak_type", not hasattr(leaf, "dtype"))
        return jax.ShapeDtypeStruct(np.shape(leaf), jax.dtypes.result_type(leaf), weak_type=weak)

    return jax.tree.map(described, tree)


def trace(function: Callable[..., Any], params: Any, inputs: Sequence[Any], plain: bool = False) -> Program:
    """Trace a function of shapes; a plain one has neither custom derivatives nor choices by platform."""
    closed, out_shape = jax.make_jaxpr(function, return_shape=True)(params, *inputs)
    return _flattened(closed, plain, len(jax.tree.leaves(params)), jax.tree.structure(out_shape))


def _flattened(closed: core.ClosedJaxpr, plain: bool = True, leaves: int = 0, out_tree: Any = None) -> Program:
    flat = _Flat([], {}, {}, [], plain)
    arguments = [flat.new(variable.aval) for variable in closed.jaxpr.invars]
    outputs = flat.inline(closed.jaxpr, [flat.number(const) for const in closed.consts], arguments)
    equations = _without_dead_code(_joined_means(flat, outputs), outputs)
    return _renumbered(flat, equations, arguments, outputs, leaves, out_tree)


class _Flat(NamedTuple):
    """What has been inlined so far."""

    equations: list[Equation]
    avals: dict[int, Any]
    numbers: dict[int, Any]
    lost: list[str]
    plain: bool

    def new(self, aval: Any) -> int:
        self.avals[len(self.avals)] = aval
        return len(self.avals) - 1

    def number(self, number: Any) -> int:
        value = self.new(jax.typeof(number))
        self.numbers[value] = number
        return value

    def inline(self, jaxpr: Any, consts: Sequence[int], arguments: Sequence[int]) -> list[int]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

        def read(atom: Any) -> int:
            return self.number(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in jaxpr.eqns:
            inputs, inner = [read(atom) for atom in equation.invars], _inner(equation)
            name, custom = equation.primitive.name, None if self.plain else self._custom(equation)
            if custom is not None:
                outputs = [self.new(variable.aval) for variable in equation.outvars]
                self.equations.append(Equation(name, custom, {}, tuple(inputs), tuple(outputs)))
            elif inner is not None:
                closed, skipped = inner
                inner_jaxpr, inner_consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
                before = len(self.equations)
                outputs = self.inline(inner_jaxpr, [self.number(c) for c in inner_consts], inputs[skipped:])
                if skipped and not self.plain:
                    self._keep_choice(before)
            elif name in UNCHANGED:
                outputs = inputs
            elif name in EXPANDED:
                operands = [atom.aval for atom in equation.invars]
                expanded = jax.make_jaxpr(partial(EXPANDED[name], **equation.params))(*operands)
                outputs = self.inline(expanded.jaxpr, (), inputs)
            else:
                outputs = [self.new(variable.aval) for variable in equation.outvars]
                self._add(equation.primitive, equation.params, inputs, outputs)
            known.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _custom(self, equation: Any) -> Callable[..., Any] | None:
        """A call that keeps its derivative at other sizes; where it cannot, its name is written down."""
        if equation.primitive.name not in CUSTOM:
            return None
        call = resizable(equation, partial(_bind, equation.primitive, equation.params), _flattened)
        if call is None:
            self.lost.append(equation.params["call_jaxpr"].jaxpr.debug_info.func_name)
        return call

    def _keep_choice(self, before: int) -> None:
        """Of choices by platform the one that td.models makes for small maps stays one."""
        added = self.equations[before:]
        if [e.name for e in added] != ["conv_general_dilated"]:
            return
        shapes = [self.avals[value].shape for value in added[0].inputs]
        if shapes[1][:2] == (3, 3) and covers(added[0].params, shapes[0]):
            self.equations[-1] = added[0]._replace(bind=by_platform(added[0].bind))

    def _add(self, primitive: Any, params: dict[str, Any], inputs: list[int], outputs: list[int]) -> None:
        def bind(*operands: Any, **settings: Any) -> Any:
            return _bind(primitive, settings, *operands)

        self.equations.append(Equation(primitive.name, bind, dict(params), tuple(inputs), tuple(outputs)))


def _bind(primitive: Any, params: Mapping[str, Any], *operands: Any) -> Any:
    return primitive.bind(*operands, **primitive.get_bind_params(params))


def _inner(equation: Any) -> tuple[Any, int] | None:
    """The function that an equation calls, and how many operands are not passed on to it."""
    params, chosen = equation.params, default_branch(equation.params)
    if chosen is not None:
        return chosen, 1
    if equation.primitive.name not in INLINED:
        return None
    found = [params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params]
    return (found[0], 0) if found else None


def default_branch(params: Mapping[str, Any]) -> Any | None:
    """The default of a choice by platform."""
    platforms = params.get("branches_platforms") or ()
    return params["branches"][platforms.index(None)] if None in platforms else None


def _joined_means(flat: _Flat, outputs: list[int]) -> list[Equation]:
    """`reduce_sum` and the division by its count, which depends on an image's size, as one equation `mean`."""
    uses = Counter([*outputs, *(value for equation in flat.equations for value in equation.inputs)])
    sums, joined = {e.outputs[0]: e for e in flat.equations if e.name == "reduce_sum"}, []
    for equation in flat.equations:
        total = sums.get(equation.inputs[0]) if equation.name == "div" else None
        if total is not None and not jnp.issubdtype(flat.avals[total.inputs[0]].dtype, jnp.inexact):
            total = None  # a division of whole numbers does not distribute over a sum
        divisor = flat.numbers.get(equation.inputs[1]) if total is not None else None
        if total is not None and divisor is not None and uses[total.outputs[0]] == 1 and np.ndim(divisor) == 0:
            shape = flat.avals[total.inputs[0]].shape
            if float(divisor) == math.prod(shape[axis] for axis in total.params["axes"]):
                joined.append(_mean(total, equation))
                continue
        joined.append(equation)
    return joined


def _mean(total: Equation, division: Equation) -> Equation:
    def bind(operand: Any, divisor: Any, **settings: Any) -> Any:
        return division.bind(total.bind(operand, **settings), divisor, **division.params)

    return Equation("mean", bind, total.params, (total.inputs[0], division.inputs[1]), division.outputs)


def _without_dead_code(equations: list[Equation], outputs: list[int]) -> list[Equation]:
    used, alive = set(outputs), []
    for equation in reversed(equations):
        if used & set(equation.outputs):
            used |= set(equation.inputs)
            alive.append(equation)
    return alive[::-1]


def _renumbered(
    flat: _Flat, equations: list[Equation], arguments: list[int], outputs: list[int], leaves: int, out_tree: Any
) -> Program:
    """Numbers by first appearance, so that what one input size alone has, and drops, leaves no trace."""
    order = [*arguments, *(value for e in equations for value in (*e.inputs, *e.outputs)), *outputs]
    number = {value: place for place, value in enumerate(dict.fromkeys(order))}

    def rename(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(number[value] for value in values)

    return Program(
        [e._replace(inputs=rename(e.inputs), outputs=rename(e.outputs)) for e in equations],
        {place: flat.avals[value] for value, place in number.items()},
        {number[value]: array for value, array in flat.numbers.items() if value in number},
        rename(arguments[:leaves]),
        rename(arguments[leaves:]),
        rename(outputs),
        out_tree,
        flat.lost,
    )
