"""A function as one flat list of equations: calls inlined, dead code left out, the same list at every input size."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from td.compact.small_maps import by_platform, covers

INLINED = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
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


class Equation(NamedTuple):
    """One operation on numbered values."""

    name: str
    bind: Callable[..., Any]
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Program(NamedTuple):
    """Equations in order; `avals` has shape and dtype of every value, `numbers` what is written in the function."""

    equations: list[Equation]
    avals: dict[int, Any]
    numbers: dict[int, Any]
    leaves: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    out_tree: Any

    def shape(self, value: int) -> tuple[Any, ...]:
        return tuple(self.avals[value].shape)

    @property
    def structure(self) -> tuple[Any, ...]:
        """Equal for two programs that differ in sizes alone."""
        ranks = tuple(len(aval.shape) for aval in self.avals.values())
        return tuple((e.name, e.inputs, e.outputs) for e in self.equations), self.outputs, ranks


def abstract(tree: Any) -> Any:
    """Shapes and dtypes in place of arrays."""

    def described(leaf: Any) -> jax.ShapeDtypeStruct:
        weak = getattr(leaf, "weak_type", not hasattr(leaf, "dtype"))
        return jax.ShapeDtypeStruct(np.shape(leaf), jax.dtypes.result_type(leaf), weak_type=weak)

    return jax.tree.map(described, tree)


def trace(function: Callable[..., Any], params: Any, inputs: Sequence[Any], choices: bool = True) -> Program:
    """Trace a function of shapes; without choices, small maps are convolved by the same primitive on all platforms."""
    closed, out_shape = jax.make_jaxpr(function, return_shape=True)(params, *inputs)
    flat = _Flat([], {}, {}, choices)
    arguments = [flat.new(variable.aval) for variable in closed.jaxpr.invars]
    outputs = flat.inline(closed.jaxpr, [flat.number(const) for const in closed.consts], arguments)
    equations = _without_dead_code(_joined_means(flat, outputs), outputs)
    leaves = len(jax.tree.leaves(params))
    return _renumbered(flat, equations, arguments, outputs, leaves, jax.tree.structure(out_shape))


class _Flat(NamedTuple):
    """What has been inlined so far."""

    equations: list[Equation]
    avals: dict[int, Any]
    numbers: dict[int, Any]
    choices: bool

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
            name = equation.primitive.name
            if inner is not None:
                closed, skipped = inner
                inner_jaxpr, inner_consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
                before = len(self.equations)
                outputs = self.inline(inner_jaxpr, [self.number(c) for c in inner_consts], inputs[skipped:])
                if name == "custom_jvp_call":
                    names = [inner.params.get("name") for inner in inner_jaxpr.eqns]
                    self._keep_derivative(names, before)
                elif skipped and self.choices:
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

    def _keep_derivative(self, names: list[Any], before: int) -> None:
        """ReLU as an ordinary maximum would have a derivative of one half at 0."""
        added = self.equations[before:]
        if names == ["relu"] and [e.name for e in added] == ["max"] and self.numbers.get(added[0].inputs[1]) == 0:
            self.equations[-1] = added[0]._replace(bind=lambda operand, zero: jax.nn.relu(operand))

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
            return primitive.bind(*operands, **primitive.get_bind_params(settings))

        self.equations.append(Equation(primitive.name, bind, dict(params), tuple(inputs), tuple(outputs)))


def _inner(equation: Any) -> tuple[Any, int] | None:
    """The function that an equation calls, and how many operands are not passed on to it."""
    params, name = equation.params, equation.primitive.name
    if name == "cond" and None in (params.get("branches_platforms") or ()):
        return params["branches"][params["branches_platforms"].index(None)], 1
    if name not in INLINED:
        return None
    found = [params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params]
    return (found[0], 0) if found else None


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
    )
