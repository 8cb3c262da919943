"""Physically smaller networks with the same outputs, from any JAX function: `compact` and `apply_plan`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from td import _tree
from td.base import Params
from td.compact.analysis import Analysis, Forced, analyse
from td.compact.emit import UNSEEN, Moved, emit, moved_constants, small_leaves, stored_constants
from td.compact.factors import Factors
from td.compact.fold import folded
from td.compact.forced import grown, recomputed, rounded
from td.compact.loops import unstacked
from td.compact.order import Move, moved, moves_of
from td.compact.plan import Plan, as_json, check_shapes, check_version, forced_of, moves_in
from td.compact.speed import dense_seconds, everything, fastest, hastened, noted, seconds
from td.compact.summary import compacted_flops, summary
from td.errors import UserError, check_at_least, check_choice
from td.program.equations import Program
from td.program.sizes import Sizes, probe, same_number
from td.program.trace import abstract, trace


class CompactParams(NamedTuple):
    """Parameters of a smaller network.

    Attributes:
      params: the tree that was given, with smaller leaves; columns may have changed places.
      constants: contributions of removed units that no bias could absorb.
    """

    params: Params
    constants: dict[str, Any]


class Compact(NamedTuple):
    """A smaller network.

    Attributes:
      apply: `(params, *inputs)`, equal to the function on the uncompacted params; differentiable, compiled by shape.
      params: a `CompactParams`.
      flops: multiplications and additions of convolutions and products for the example inputs, before and after.
      summary: a table of shapes, parameters and FLOPs before and after, and the operations that stay whole.
      plan: the moved and the kept indices, for JSON and `td.apply_plan`.
    """

    apply: Callable[..., Any]
    params: CompactParams
    flops: tuple[int, int]
    summary: str
    plan: Plan


def compact(
    apply_fn: Callable[..., Any],
    params: Params,
    *example_inputs: Any,
    round_to: int = 1,
    keep: str = "fast",
    unroll: bool = False,
) -> Compact:
    """Remove whatever cannot change the outputs: dead units, heads, branches, unused inputs.

    Constant propagation finds entries that do not depend on the inputs; liveness, those that no output needs.
    The equations then run on what is left, with the constants moved into biases.
    Units that may change places, such as the columns of a head, are sorted first, so that the dead ones lie together.
    An operation without a rule stays whole, and the summary names it.

    Args:
      apply_fn: `(params, *inputs) -> outputs`, at inference: no dropout, norms by their running statistics.
      params: any pytree of arrays, statistics included; its zeros decide what is removed. All numbers must be finite.
      *example_inputs: arrays or `jax.ShapeDtypeStruct` objects. Batches and images of other sizes are valid later.
      round_to: widths are kept at multiples of it.
      keep: "fast" keeps dead channels whose removal would copy for longer than it saves, "smallest" removes all, and
        "timed" takes the fastest of both and of a network with all channels, timed on the example inputs.
      unroll: scanned layers get widths of their own; every stacked leaf becomes a tuple of layers.

    Returns:
      A `Compact`.

    Raises:
      UserError: a leaf is no array, is traced or has NaN or infinity; or `round_to` or `keep` is not valid.

    Example:
      >>> import jax.numpy as jnp, td
      >>> network = lambda params, x: jnp.maximum(x @ params["w1"] + params["b1"], 0) @ params["w2"]
      >>> w1 = jnp.array([[1.0, 0.0], [2.0, 0.0]])  # the second unit is dead: it always gives its bias
      >>> params = {"w1": w1, "b1": jnp.array([0.0, 3.0]), "w2": jnp.array([[1.0], [2.0]])}
      >>> small = td.compact(network, params, jnp.ones((1, 2)))
      >>> print(small.summary)
      kernel      before  after
      w1          [2, 2]  [2, 1]
      w2          [2, 1]  [1, 1]
      parameters  8       5, 1 of them moved constants
      FLOPs       12      6
      >>> small.flops
      (12, 6)
      >>> inputs = jnp.array([[1.0, 1.0], [-1.0, 4.0]])
      >>> small.apply(small.params, inputs).tolist() == network(params, inputs).tolist()
      True
    """
    check_at_least("round_to", round_to, 1, whole=True)
    check_choice("keep", keep, ("fast", "smallest", "timed"))
    _check(params, example_inputs)
    if unroll:
        apply_fn, params = unstacked(apply_fn, params, example_inputs)
    program, sizes, leaves = _read(apply_fn, params, example_inputs)
    analysis, paths = analyse(program, sizes, leaves, Forced()), _tree.paths(params)
    factors = Factors(program, sizes)
    if moves := list(moves_of(program, factors, analysis.computed, leaves, paths)):
        leaves = [moved(leaf, path, moves) for leaf, path in zip(leaves, paths, strict=True)]
        analysis = analyse(program, sizes, leaves, Forced())

    def settled(analysis: Analysis) -> Reduced:
        while True:
            more = rounded(program, analysis, int(round_to))
            if more == analysis.forced:
                reduced = _reduce(program, analysis, leaves, example_inputs)
                if grown(program, *reduced[1:]):
                    more = recomputed(program, reduced.analysis, reduced.moved)
            if more == analysis.forced:
                return reduced
            analysis = analyse(program, sizes, leaves, more)

    def time(reduced: Reduced) -> float:
        return seconds(program, reduced.analysis, reduced.moved.copies)

    found = {"smallest": settled(analysis)}
    if keep != "smallest":
        forced = hastened(program, factors, found["smallest"].analysis, found["smallest"].moved.copies)
        if forced.note:
            found["fast"] = settled(analyse(program, sizes, leaves, forced))
        if keep == "timed" or min(map(time, found.values())) > dense_seconds(program, analysis):
            found["whole"] = settled(analyse(program, sizes, leaves, everything(program)))
    best = min(found.values(), key=time)
    if keep == "timed":
        networks = {name: _finish(apply_fn, params, program, reduced, moves) for name, reduced in found.items()}
        name, note = fastest({name: partial(n.apply, n.params) for name, n in networks.items()}, example_inputs)
        best = found[name]._replace(analysis=noted(found[name].analysis, note))
    small = _finish(apply_fn, params, program, best, moves)
    return small._replace(plan={**small.plan, "unroll": unroll})


def apply_plan(apply_fn: Callable[..., Any], params: Params, plan: Plan, *example_inputs: Any) -> Compact:
    """Repeat a compaction on other params of the same shapes, such as another checkpoint of one pruned network.

    Args:
      apply_fn: the function that was compacted.
      params: a tree of the same names and shapes, zero where the plan needs zeros.
      plan: `Compact.plan`, possibly read from JSON.
      *example_inputs: as for `td.compact`.

    Returns:
      A `Compact` whose leaves have the plan's shapes.

    Raises:
      UserError: another function, other shapes, or params with other zeros than the plan needs.

    Example:
      >>> import json, jax.numpy as jnp, td
      >>> network = lambda params, x: jnp.maximum(x @ params["w1"], 0) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, 0.0]]), "w2": jnp.array([[1.0], [2.0]])}
      >>> plan = json.loads(json.dumps(td.compact(network, params, jnp.ones((1, 1))).plan))
      >>> params = {"w1": jnp.array([[5.0, 0.0]]), "w2": jnp.array([[1.0], [3.0]])}
      >>> td.apply_plan(network, params, plan, jnp.ones((1, 1))).params.params["w1"].tolist()
      [[5.0]]
    """
    check_version(plan)
    _check(params, example_inputs)
    if plan["unroll"]:
        apply_fn, params = unstacked(apply_fn, params, example_inputs)
    check_shapes(plan, params)
    program, sizes, leaves = _read(apply_fn, params, example_inputs)
    if plan["equations"] != [equation.name for equation in program.every]:
        raise UserError("the plan is for another function: compact this one again")
    moves, paths = moves_in(plan), _tree.paths(params)
    leaves = [moved(leaf, path, moves) for leaf, path in zip(leaves, paths, strict=True)]
    reduced = _reduce(program, analyse(program, sizes, leaves, forced_of(plan)), leaves, example_inputs)
    again = _finish(apply_fn, params, program, reduced, moves)
    if grown(program, *reduced[1:]):
        raise UserError("with this plan these params would become more numbers: compact them again")
    if any(plan[part] != again.plan[part] for part in ("leaves", "values", "contracted")):
        raise UserError("these params do not have the plan's zeros: compact them again, or mask them as before")
    return again._replace(plan={**again.plan, "unroll": plan["unroll"]})


def _check(params: Params, inputs: Sequence[Any]) -> None:
    """Reject functions, traced arrays and NaN among params, and settings among inputs."""
    for path, leaf in _tree.named_leaves(params).items():
        if callable(leaf):
            raise UserError(
                f"{path!r} is a function, not an array: split an Equinox module by eqx.partition(model, eqx.is_array), "
                "give the arrays as params and combine the two parts within the function"
            )
        if isinstance(leaf, jax.core.Tracer):
            raise UserError("params must be concrete arrays: compact outside of jit, grad and vmap")
        if jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.inexact) and not np.isfinite(np.asarray(leaf)).all():
            raise UserError(f"{path!r} has NaN or infinity: repair the params")
    for leaf in jax.tree.leaves(inputs):
        if isinstance(leaf, bool | str):
            raise UserError(f"{leaf!r} is a setting, not an input: set it within the function")


def _read(apply_fn: Callable[..., Any], params: Params, inputs: Sequence[Any]) -> tuple[Program, Sizes, list[Any]]:
    shapes, inputs = abstract(params), abstract(tuple(inputs))
    program = trace(apply_fn, shapes, inputs)
    return program, probe(apply_fn, shapes, inputs, program), jax.tree.leaves(params)


class Reduced(NamedTuple):
    """A network whose indices are settled: smaller leaves with absorbed constants, and the other constants."""

    analysis: Analysis
    leaves: list[Any]
    moved: Moved


def _reduce(program: Program, analysis: Analysis, leaves: list[Any], example_inputs: Sequence[Any]) -> Reduced:
    analysis, small = folded(program, analysis, small_leaves(program, analysis, leaves))
    inputs = jax.tree.leaves(abstract(tuple(example_inputs)))
    return Reduced(analysis, small, moved_constants(program, analysis, small, inputs))


def _finish(
    apply_fn: Callable[..., Any], params: Params, program: Program, reduced: Reduced, moves: Sequence[Move]
) -> Compact:
    analysis, small, moved = reduced
    paths, shapes, flops = _tree.paths(params), abstract(params), compacted_flops(program, analysis)
    lean = analysis._replace(values={}, computed={})

    def apply(params: CompactParams, *inputs: Any) -> Any:
        """Trace and emit again at every new size of the inputs."""
        if params.constants.keys() != moved.trained.keys():
            raise UserError(f"the constants of this network are {', '.join(moved.trained) or 'none'}: give these")
        for leaf, shape in zip(jax.tree.leaves(params.params), jax.tree.leaves(shapes), strict=True):
            if jax.dtypes.result_type(leaf) != shape.dtype:
                raise UserError(f"{leaf.dtype} params instead of {shape.dtype}: cast them, then compact")
        here = trace(apply_fn, shapes, abstract(inputs))
        _check_sizes(program, here, lean)
        constants = stored_constants(params.constants, moved)
        outputs = emit(here, lean, jax.tree.leaves(params.params), jax.tree.leaves(inputs), constants, [])
        return jax.tree.unflatten(here.out_tree, outputs)

    return Compact(
        jax.jit(apply),
        CompactParams(jax.tree.unflatten(jax.tree.structure(params), small), moved.trained),
        flops,
        summary(program, analysis, dict(zip(paths, small, strict=True)), moved, flops),
        as_json(program, paths, analysis, moved, moves),
    )


def _check_sizes(program: Program, here: Program, analysis: Analysis) -> None:
    """Reject sizes that change the equations, a constant, a window or the size of an axis that is not dynamic."""
    fixed = (
        (dynamic and size > 0) or size == now  # of an empty array nothing was seen
        for value, flags in analysis.sizes.dynamic_axes.items()
        for size, now, dynamic in zip(program.shape(value), here.shape(value), flags, strict=True)
    )
    numbers = (
        same_number(number, here.numbers.get(value))
        for value, number in program.numbers.items()
        if value not in analysis.sizes.size_dependent
    )
    every = program.every, here.every
    windows = (
        len({equations[i].params.get("window_dimensions") for equations in every}) == 1 for i in analysis.unpadded
    )
    if here.structure != program.structure or not all((*fixed, *windows, *numbers)):
        raise UserError(UNSEEN)
