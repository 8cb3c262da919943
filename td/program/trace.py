"""Tracing to one flat list of equations: calls inlined, dead code removed, the same list at every input size."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from td.program.simplify import simplified
from td.program.stacks import layers

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

MOST_UNROLLED = 256
"""Iterations up to which a loop is unrolled."""


def _unrolled(*operands: Any, jaxpr: core.ClosedJaxpr, length: int, reverse: bool, **settings: Any) -> list[Any]:
    constants, carried = settings["num_consts"], settings["num_carry"]
    fixed, carry = operands[:constants], operands[constants : constants + carried]
    pieces: dict[int, Any] = {}
    for place in range(length)[::-1] if reverse else range(length):
        stacked = [lax.index_in_dim(each, place, keepdims=False) for each in operands[constants + carried :]]
        outputs = core.jaxpr_as_fun(jaxpr)(*fixed, *carry, *stacked)
        carry, pieces[place] = outputs[:carried], outputs[carried:]
    stacks = [jnp.stack(each) for each in zip(*(pieces[place] for place in range(length)), strict=True)]
    return [*carry, *stacks]


CHOICES: dict[str, Callable[..., Callable[..., Any] | None]] = {}
"""By primitive: `(bind, params, *avals)` to a function that chooses by platform again at smaller shapes, or None."""


def register_platform_choice(name: str, choose: Callable[..., Callable[..., Any] | None]) -> None:
    """Keep choices by platform whose default is one primitive; other choices become their default."""
    CHOICES[name] = choose


def abstract(tree: Any) -> Any:
    """Shapes and dtypes instead of arrays."""
    return jax.eval_shape(lambda tree: tree, tree)


def trace(
    function: Callable[..., Any], params: Any, inputs: Sequence[Any], plain: bool = False, unroll: bool = False
) -> Program:
    """Trace a function of shapes; a plain one has neither custom derivatives nor choices by platform."""
    closed, out_shape = jax.make_jaxpr(function, return_shape=True)(params, *inputs)
    return _flattened(closed, plain, len(jax.tree.leaves(params)), jax.tree.structure(out_shape), unroll)


def _flattened(
    closed: core.ClosedJaxpr, plain: bool = True, leaves: int = 0, out_tree: Any = None, unroll: bool = False
) -> Program:
    flat = _Flat([], {}, {}, {}, [], plain, unroll)
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
    made: dict[int, Equation]  # by output
    lost: list[str]
    plain: bool
    unroll: bool  # loops over other stacks than those of the function itself too

    def new(self, aval: Any) -> int:
        self.avals[len(self.avals)] = aval
        return len(self.avals) - 1

    def number(self, number: Any, aval: Any = None) -> int:
        value = self.new(jax.typeof(number) if aval is None else aval)
        self.numbers[value] = number
        return value

    def body(self, closed: core.ClosedJaxpr) -> Body:
        """A function on its own, without dead code."""
        inner = self._replace(equations=[])
        arguments = [inner.new(variable.aval) for variable in closed.jaxpr.invars]
        outputs = inner.inline(closed.jaxpr, closed.consts, arguments)
        used, equations = set(outputs), []
        for equation in reversed(inner.equations):
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
        outputs = [variable.aval for variable in equation.outvars]
        if custom is not None:
            return self.add(name, custom, {}, inputs, outputs)
        if inner is not None:
            before = len(self.equations)
            jaxpr = getattr(inner, "jaxpr", inner)
            outputs = self.inline(jaxpr, getattr(inner, "consts", ()), inputs[len(inputs) - len(jaxpr.invars) :])
            if name == "cond" and not self.plain and len(self.equations) == before + 1:
                self._keep_choice()
            return outputs
        if name in UNCHANGED:
            return inputs
        if name in EXPANDED or (name == "scan" and self._unrolls(params, inputs)):
            return self.traced(partial(EXPANDED.get(name, _unrolled), **params), inputs)
        bind = partial(_bind, equation.primitive)
        simple = simplified(self, equation, bind, inputs)
        if simple is not None:
            return simple
        whole = name not in BODIES or equation.effects or params.get("branches_platforms") or params.get("length") == 0
        bodies = () if whole else map(self.body, BODIES[name](params))
        return self.add(name, bind, dict(params), inputs, outputs, bodies)

    def _unrolls(self, params: Mapping[str, Any], inputs: Sequence[int]) -> bool:
        """Unroll a scan over values that the function has stacked, as its layers then have their own widths."""
        stacks = inputs[params["num_consts"] + params["num_carry"] :]
        layered = self.unroll or any(layers(self, value, 0) is not None for value in stacks)
        return layered and params["length"] <= MOST_UNROLLED

    def traced(self, function: Callable[..., Any], inputs: Sequence[int]) -> list[int]:
        """Inline a function of values."""
        closed = jax.make_jaxpr(function)(*(self.avals[value] for value in inputs))
        return self.inline(closed.jaxpr, closed.consts, inputs)

    def add(
        self,
        name: str,
        bind: Callable[..., Any],
        params: dict[str, Any],
        inputs: Sequence[int],
        avals: Sequence[Any],
        bodies: Iterable[Body] = (),
    ) -> list[int]:
        """Add an equation."""
        outputs = [self.new(aval) for aval in avals]
        self.equations.append(Equation(name, bind, params, tuple(inputs), tuple(outputs), tuple(bodies)))
        self.made.update(dict.fromkeys(outputs, self.equations[-1]))
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
