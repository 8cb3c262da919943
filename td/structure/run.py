"""`td.trace`: a function's equations run on ids of units instead of numbers; loops iteration by iteration."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from td import _tree
from td.base import Params
from td.errors import check_choice
from td.program.trace import EXPANDED, UNCHANGED, abstract, inner_function
from td.structure.classes import merged
from td.structure.known import known_output
from td.structure.result import Structure, build
from td.structure.rules import live_output
from td.structure.state import OUTPUT, Tracing
from td.structure.values import Known, Live, Op, Value, joined_live, of_leaf, resized

MOST_ITERATIONS = 256
"""Iterations up to which a loop's counter is followed where no leaf is stacked."""


def trace(apply_fn: Callable[..., Any], params: Params, *example_inputs: Any, include: Sequence[str] = ()) -> Structure:
    """Read a network's structure from its function, by shapes alone and without a name.

    A leaf is a kernel where a product contracts it with something that depends on the inputs: contracted axes are its
    fan-in, free ones its units. Units that are added or multiplied, entry by entry, belong to one group.

    Args:
      apply_fn: `(params, *inputs) -> outputs`, at inference.
      params: any pytree of arrays or shapes, the one that masks will have.
      *example_inputs: arrays or `jax.ShapeDtypeStruct` objects.
      include: of "first" and "last", the kernels to mask besides those in between.

    Returns:
      A `Structure`: give it as `kernels` wherever patterns go, and print it.

    Raises:
      UserError: an unknown role.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> network = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"] + p["bias"]) @ p["c"]
      >>> shapes = {"a": (4, 8), "b": (8, 6), "bias": (6,), "c": (6, 3)}
      >>> params = {name: jnp.ones(shape) for name, shape in shapes.items()}
      >>> print(td.trace(network, params, jnp.ones((1, 4))))
      kernel  shape   fan-in -> units  role
      a       [4, 8]  4 -> 8           first, not masked
      b       [8, 6]  8 -> 6
      c       [6, 3]  6 -> 3           last, not masked
      <BLANKLINE>
      groups  rankings x width  made by  read by
      b       1 x 6             b        c
      <BLANKLINE>
      bias: a scale or an offset of a group
    """
    for role in include:
        check_choice("include", role, ("first", "last"))
    paths = _tree.paths(params)
    closed = jax.make_jaxpr(apply_fn)(abstract(params), *abstract(tuple(example_inputs)))
    return build(_traced(closed, len(paths)), paths, include)


def _traced(closed: core.ClosedJaxpr, leaves: int) -> Tracing:
    """Run a function of params and inputs."""
    shapes = [tuple(variable.aval.shape) for variable in closed.jaxpr.invars]
    tracing = Tracing(shapes[:leaves])
    arguments: list[Value] = [of_leaf(leaf, shape) for leaf, shape in enumerate(tracing.shapes)]
    for shape in shapes[leaves:]:
        labels = [tracing.new(resized((1,) * len(shape), axis, size)) for axis, size in enumerate(shape)]
        arguments.append(Live(fresh=True).with_labels(labels))
    for output in run(tracing, closed.jaxpr, closed.consts, arguments):
        for ids in output.labels if isinstance(output, Live) else ():
            tracing.freeze(ids, OUTPUT)
    for ids in tracing.factors:
        tracing.freeze(ids, "each is a factor of several others")
    return tracing


def run(trace: Tracing, jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
    """Run the equations that the outputs need."""
    given = [*map(number_of, consts), *arguments]
    known: dict[Any, Value] = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))

    def read(atom: Any) -> Value:
        return number_of(atom.val) if isinstance(atom, core.Literal) else known[atom]

    for equation in needed(jaxpr):
        outputs = _outputs(trace, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(trace: Tracing, equation: Any, values: list[Value]) -> list[Value]:
    """Run one equation."""
    name = equation.primitive.name
    if (inner := inner_function(equation)) is not None:
        jaxpr, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
        trace.calls.append(equation)
        outputs = run(trace, jaxpr, consts, values[len(values) - len(jaxpr.invars) :])
        trace.calls.pop()
        return outputs
    if name in UNCHANGED:
        return values
    if name in EXPANDED:
        expanded = jax.make_jaxpr(partial(EXPANDED[name], **equation.params))
        return run(trace, expanded(*(atom.aval for atom in equation.invars)).jaxpr, (), values)
    if name in LOOPS:
        return LOOPS[name](trace, equation, values)
    shapes = tuple(tuple(getattr(atom.aval, "shape", ())) for atom in equation.invars)
    shape = tuple(getattr(equation.outvars[0].aval, "shape", ()))
    op = Op(name, (*trace.calls, equation), equation.params, shapes, shape)
    known = [value for value in values if isinstance(value, Known)]
    if len(known) == len(values):
        return list(known_output(op, known, trace.shapes))
    found = live_output(trace, op, values)
    if found is None:
        found = [trace.opaque(op, values)] * len(equation.outvars)
    return list(found) if isinstance(found, list) else [found] * len(equation.outvars)


def needed(jaxpr: core.Jaxpr) -> list[Any]:
    """The equations that the outputs depend on, in order."""
    used = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if used & set(equation.outvars):
            used |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)}
            kept.append(equation)
    return kept[::-1]


def number_of(number: Any) -> Known:
    """A number in the function; whole ones are followed."""
    dtype = jax.dtypes.result_type(number)
    whole = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)
    return Known(number=np.asarray(number) if whole and not isinstance(number, jax.core.Tracer) else None)


def _scan(trace: Tracing, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Iterate over the layers of a stack or the values of a counter, else until nothing changes."""
    params = equation.params
    constants, carried, length = params["num_consts"], params["num_carry"], params["length"]
    fixed, carry = values[:constants], list(values[constants : constants + carried])
    stacked, body = list(values[constants + carried :]), params["jaxpr"]
    units = [ids for value in stacked if isinstance(value, Live) for ids in value.labels if ids.shape[0] > 1]
    differ = trace.has_units(units) or any(isinstance(one, Known) and one.leaf is not None for one in stacked)
    if length > MOST_ITERATIONS and not differ:
        carry, stacked = _without_numbers(carry), _without_numbers(stacked)
    differ |= any(isinstance(value, Known) and value.number is not None for value in (*carry, *stacked))
    pieces: list[list[Value]] = []
    trace.calls.append(equation)
    for place in range(length)[::-1] if params["reverse"] else range(length):
        costs, before = len(trace.costs), carry
        outputs = run(trace, body.jaxpr, body.consts, [*fixed, *carry, *(_at(value, place) for value in stacked)])
        carry = _mixed(trace, before, outputs[:carried])
        pieces.append(outputs[carried:])
        if not differ and _alike(trace, before, carry):
            rest = length - len(pieces)  # iterations like this one
            trace.costs += [cost._replace(flops=cost.flops * rest) for cost in trace.costs[costs:]]
            break
    trace.calls.pop()
    pieces = pieces[::-1] if params["reverse"] else pieces
    return [*carry, *(_stacked(trace, each, length) for each in zip(*pieces, strict=True))]


def _without_numbers(values: Sequence[Value]) -> list[Value]:
    return [value._replace(number=None) if isinstance(value, Known) else value for value in values]


def _at(value: Value, place: int) -> Value:
    """One iteration's slice."""
    if isinstance(value, Live):
        return value.with_labels([np.take(ids, min(place, ids.shape[0] - 1), 0) for ids in value.labels])
    if value.leaf is not None:
        first, *rest = value.vectors
        added = tuple(each for each in (_at(other, place) for other in value.added) if isinstance(each, Known))
        start = value.start + int(first[min(place, first.size - 1)])
        return value._replace(start=start, vectors=tuple(rest), added=added)
    if value.pieces:
        return Known(mixed=value.leaves)
    return value._replace(number=None if value.number is None else value.number[place])


def _mixed(trace: Tracing, carry: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """The carry that the next iteration reads, whose units are those of the carry before."""
    mixed: list[Value] = []
    for before, after in zip(carry, outputs, strict=True):
        live = [value for value in (before, after) if isinstance(value, Live)]
        joint = joined_live(live).with_labels(merged(trace, [value.labels for value in live], len(live) > 1))
        mixed.append(joint._replace(fresh=joint.fresh and len(live) > 1) if live else after)
    return mixed


def _alike(trace: Tracing, carry: Sequence[Value], after: Sequence[Value]) -> bool:
    def form(value: Value) -> Any:
        if isinstance(value, Known):
            return None
        roots = [trace.roots(ids) for ids in value.labels]
        return value.kernels, value.fresh, [(ids.shape, ids.tobytes()) for ids in roots]

    return all(form(one) == form(other) for one, other in zip(carry, after, strict=True))


def _stacked(trace: Tracing, pieces: Sequence[Value], length: int) -> Value:
    """The slices of all iterations; of those that were left out, and of other shapes, the last one."""
    live = [piece for piece in pieces if isinstance(piece, Live)]
    if not live:
        return Known(mixed=frozenset[int]().union(*(piece.leaves for piece in pieces if isinstance(piece, Known))))
    labels = []
    for i, ids in enumerate(live[-1].labels):
        own = [piece.labels[i] for piece in live if len(piece.labels) > i and piece.labels[i].shape == ids.shape]
        whole = np.stack(own) if len(own) == length else ids[None]
        labels.append(trace.settled(trace.roots(whole)))
    return joined_live(live).with_labels(labels)


def _cond(trace: Tracing, equation: Any, values: Sequence[Value]) -> list[Value]:
    branches = [run(trace, branch.jaxpr, branch.consts, values[1:]) for branch in equation.params["branches"]]
    return reduce(partial(_mixed, trace), branches)


def _while(trace: Tracing, equation: Any, values: Sequence[Value]) -> list[Value]:
    tested, used, body = (equation.params[name] for name in ("cond_nconsts", "body_nconsts", "body_jaxpr"))
    constants, carry = values[tested : tested + used], _without_numbers(values[tested + used :])
    while True:
        outputs = run(trace, body.jaxpr, body.consts, [*constants, *carry])
        after = _without_numbers(_mixed(trace, carry, outputs))
        if _alike(trace, carry, after):
            return after
        carry = after


LOOPS: dict[str, Callable[..., list[Value]]] = {"scan": _scan, "cond": _cond, "while": _while}
"""Loops and branches by primitive."""
