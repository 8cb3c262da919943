"""Tracing to one flat list of equations: calls inlined, dead code removed, the same list at every input size."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from td.program.custom import resizable
from td.program.equations import CUSTOM, Body, Equation, Program

INLINED = {"jit", "pjit", "closed_call", "core_call", *CUSTOM, "checkpoint", "remat2"}
"""Calls that are replaced by their inner function."""

BODIES: dict[str, Callable[[Mapping[str, Any]], Sequence[core.ClosedJaxpr]]] = {
    "scan": lambda params: [params["jaxpr"]],
    "while": lambda params: [params["cond_jaxpr"], params["body_jaxpr"]],
    "cond": lambda params: params["branches"],
}
"""The functions that loops and choices run."""

UNCHANGED = {"name", "sharding_constraint", "optimization_barrier"}
"""Operations that return their operands; in a smaller network they are left out."""


def _tile(operand: Any, reps: Sequence[int]) -> list[Any]:
    shape = [size for pair in zip(reps, operand.shape, strict=True) for size in pair]
    repeated = lax.broadcast_in_dim(operand, shape, range(1, len(shape), 2))
    return [lax.reshape(repeated, [times * size for times, size in zip(reps, operand.shape, strict=True)])]


EXPANDED: dict[str, Callable[..., list[Any]]] = {
    "split": lambda operand, axis, sizes: [
        lax.slice_in_dim(operand, end - size, end, axis=axis)
        for size, end in zip(sizes, np.cumsum(sizes).tolist(), strict=True)
    ],
    "stack": lambda *operands, axis: [lax.concatenate([lax.expand_dims(o, (axis,)) for o in operands], axis)],
    "tile": _tile,
    "unstack": lambda operand, axis: [
        lax.index_in_dim(operand, i, axis, keepdims=False) for i in range(operand.shape[axis])
    ],
}
"""Operations that are rewritten as others, which have a rule."""

CHOICES: dict[str, Callable[..., Callable[..., Any] | None]] = {}
"""By primitive: `(bind, params, *avals)` to a function that chooses by platform again at smaller shapes, or None."""


def register_platform_choice(name: str, choose: Callable[..., Callable[..., Any] | None]) -> None:
    """Keep choices by platform whose default is one primitive; other choices become their default."""
    CHOICES[name] = choose


def abstract(tree: Any) -> Any:
    """Shapes and dtypes instead of arrays."""
    return jax.eval_shape(lambda tree: tree, tree)


def trace(function: Callable[..., Any], params: Any, inputs: Sequence[Any], plain: bool = False) -> Program:
    """Trace a function of shapes; a plain one has neither custom derivatives nor choices by platform."""
    closed, out_shape = jax.make_jaxpr(function, return_shape=True)(params, *inputs)
    return _flattened(closed, plain, len(jax.tree.leaves(params)), jax.tree.structure(out_shape))


def _flattened(closed: core.ClosedJaxpr, plain: bool = True, leaves: int = 0, out_tree: Any = None) -> Program:
    flat = _Flat([], {}, {}, [], plain)
    whole = flat.body(closed)
    # Numbers by first appearance, so that equations of one input size alone, if dead, leave no trace.
    number = {value: place for place, value in enumerate(dict.fromkeys(_appearing(whole)))}
    places = count()

    def rename(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(number[value] for value in values)

    def renamed(body: Body) -> Body:
        equations = [
            e._replace(
                number=next(places),
                inputs=rename(e.inputs),
                outputs=rename(e.outputs),
                bodies=tuple(map(renamed, e.bodies)),
            )
            for e in body.equations
        ]
        return Body(equations, rename(body.inputs), rename(body.outputs))

    equations, arguments, outputs = renamed(whole)
    return Program(
        equations,
        {place: flat.avals[value] for value, place in number.items()},
        {number[value]: array for value, array in flat.numbers.items() if value in number},
        arguments[:leaves],
        arguments[leaves:],
        outputs,
        out_tree,
        flat.lost,
    )


def _appearing(body: Body) -> Iterator[int]:
    yield from body.inputs
    for equation in body.equations:
        yield from (*equation.inputs, *equation.outputs)
        for inner in equation.bodies:
            yield from _appearing(inner)
    yield from body.outputs


class _Flat(NamedTuple):
    """Equations and values inlined so far."""

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

    def body(self, closed: core.ClosedJaxpr) -> Body:
        """A function on its own, without dead code."""
        inner = self._replace(equations=[])
        arguments = [inner.new(variable.aval) for variable in closed.jaxpr.invars]
        outputs = inner.inline(closed.jaxpr, closed.consts, arguments)
        used, equations = set(outputs), []
        for equation in reversed(_joined_means(inner, outputs)):
            if used & set(equation.outputs):  # else dead code
                used |= set(equation.inputs)
                equations.append(equation)
        return Body(equations[::-1], tuple(arguments), tuple(outputs))

    def inline(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[int]) -> list[int]:
        constants = [self.number(const) for const in consts]
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

        def read(atom: Any) -> int:
            return self.number(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in jaxpr.eqns:
            outputs = self._inlined(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _inlined(self, equation: Any, inputs: list[int]) -> list[int]:
        name, params, inner = equation.primitive.name, equation.params, inner_function(equation)
        custom = None if self.plain or name not in CUSTOM else self._custom(equation)
        if custom is not None:
            return self._added(equation, custom, {}, inputs)
        if inner is not None:
            before = len(self.equations)
            jaxpr = getattr(inner, "jaxpr", inner)
            outputs = self.inline(jaxpr, getattr(inner, "consts", ()), inputs[len(inputs) - len(jaxpr.invars) :])
            if name == "cond" and not self.plain and len(self.equations) == before + 1:
                self._keep_choice()
            return outputs
        if name in UNCHANGED:
            return inputs
        if name in EXPANDED:
            operands = [atom.aval for atom in equation.invars]
            return self.inline(jax.make_jaxpr(partial(EXPANDED[name], **params))(*operands).jaxpr, (), inputs)
        return self._added(equation, partial(_bind, equation.primitive), dict(params), inputs)

    def _added(self, equation: Any, bind: Callable[..., Any], params: dict[str, Any], inputs: list[int]) -> list[int]:
        outputs, name = [self.new(variable.aval) for variable in equation.outvars], equation.primitive.name
        whole = name not in BODIES or equation.effects or params.get("branches_platforms") or params.get("length") == 0
        bodies = () if whole else tuple(map(self.body, BODIES[name](params)))
        self.equations.append(Equation(name, bind, params, tuple(inputs), tuple(outputs), bodies))
        return outputs

    def _custom(self, equation: Any) -> Callable[..., Any] | None:
        """A call that keeps its derivative at other sizes; else its name is recorded."""
        call = resizable(equation, partial(_bind, equation.primitive, **equation.params), _flattened)
        if call is None:
            self.lost.append(equation.params["call_jaxpr"].jaxpr.debug_info.func_name)
        return call

    def _keep_choice(self) -> None:
        """Make the last equation, the default of a choice by platform, the choice again."""
        default = self.equations[-1]
        if default.name in CHOICES:
            bind = CHOICES[default.name](default.bind, default.params, *(self.avals[value] for value in default.inputs))
            self.equations[-1] = default._replace(bind=bind or default.bind)


def _bind(primitive: Any, /, *operands: Any, **params: Any) -> Any:
    return primitive.bind(*operands, **primitive.get_bind_params(params))


def inner_function(equation: Any) -> Any | None:
    """The function that an equation calls, of its last operands; of a choice by platform the default."""
    params, chosen = equation.params, default_branch(equation.params)
    if chosen is not None or equation.primitive.name not in INLINED:
        return chosen
    return next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)


def default_branch(params: Mapping[str, Any]) -> Any | None:
    """The default of a choice by platform."""
    platforms = params.get("branches_platforms") or ()
    return params["branches"][platforms.index(None)] if None in platforms else None


def _joined_means(flat: _Flat, outputs: list[int]) -> list[Equation]:
    """`reduce_sum` and the division by its count, which depends on an image's size, as one equation `mean`."""
    uses = Counter([*outputs, *(value for equation in flat.equations for value in equation.inputs)])
    sums = {e.outputs[0]: e for e in flat.equations if e.name == "reduce_sum"}

    def joined(equation: Equation) -> Equation:
        total = sums.get(equation.inputs[0]) if equation.name == "div" else None
        if total is None or uses[total.outputs[0]] != 1:
            return equation
        terms, divisor = flat.avals[total.inputs[0]], flat.numbers.get(equation.inputs[1])
        # A division of whole numbers does not distribute over a sum.
        if divisor is None or np.ndim(divisor) or not jnp.issubdtype(terms.dtype, jnp.inexact):
            return equation
        if float(divisor) != math.prod(terms.shape[axis] for axis in total.params["axes"]):
            return equation

        def bind(operand: Any, divisor: Any, **settings: Any) -> Any:
            return equation.bind(total.bind(operand, **settings), divisor, **equation.params)

        return Equation("mean", bind, total.params, (total.inputs[0], equation.inputs[1]), equation.outputs)

    return [joined(equation) for equation in flat.equations]
