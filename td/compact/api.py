"""Physically smaller networks with the same outputs, from any JAX function: `compact` and `apply_plan`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from td import _tree
from td.base import Params
from td.compact.analysis import Analysis, Forced, analyse
from td.compact.emit import Layout, emit
from td.compact.flops import compacted_flops
from td.compact.fold import Fold, folded, folds
from td.compact.plan import (
    UNSEEN,
    Moved,
    Plan,
    as_json,
    check_plan,
    forced_of,
    layout_of,
    moved_constants,
    same,
    small_leaves,
    stored_constants,
)
from td.compact.program import Program
from td.compact.recompute import grown, recomputed
from td.compact.rounding import rounded
from td.compact.sizes import Sizes, probe, same_number
from td.compact.summary import report
from td.compact.trace import abstract, trace
from td.errors import UserError, check_at_least


class CompactParams(NamedTuple):
    """`params`: the tree that was given, with smaller leaves. `constants`: what removed units had come to."""

    params: Params
    constants: dict[str, Any]


class Compact(NamedTuple):
    """A smaller network.

    Attributes:
      apply: `(params, *inputs)`, what the function gives for the uncompacted params; differentiable, compiled by shape.
      params: a `CompactParams`.
      flops: multiplications and additions of convolutions and products for the example inputs, before and after.
      report: a table of shapes, parameters and FLOPs before and after, and what was left alone and why.
      plan: what stays, for JSON and `td.apply_plan`.
    """

    apply: Callable[..., Any]
    params: CompactParams
    flops: tuple[int, int]
    report: str
    plan: Plan


def compact(apply_fn: Callable[..., Any], params: Params, *example_inputs: Any, round_to: int = 1) -> Compact:
    """Remove for good whatever cannot change the outputs: dead units, heads, branches, unused inputs.

    The function is traced to its equations. Forwards, entries that do not depend on the inputs are found, and their
    constants; backwards, those that nothing needs. The equations are then run on what is left, with the constants
    moved into biases. An operation without a rule is left whole, and the report says so.

    Args:
      apply_fn: `(params, *inputs) -> outputs`, at inference: no dropout, norms by their running statistics.
      params: any pytree of arrays, statistics included; its zeros decide what goes. All numbers must be finite.
      *example_inputs: arrays or `jax.ShapeDtypeStruct` objects; batches and images of other sizes may be given later.
      round_to: widths are kept at multiples of it.

    Returns:
      A `Compact`.

    Raises:
      UserError: a leaf is no array, is traced or has NaN or infinity; `round_to` is no whole number of at least 1; or
        `apply_fn` is not callable.

    Example:
      >>> import jax.numpy as jnp, td
      >>> network = lambda params, x: jnp.maximum(x @ params["w1"] + params["b1"], 0) @ params["w2"]
      >>> w1 = jnp.array([[1.0, 0.0], [2.0, 0.0]])  # the second unit is dead: it always gives its bias
      >>> params = {"w1": w1, "b1": jnp.array([0.0, 3.0]), "w2": jnp.array([[1.0], [2.0]])}
      >>> small = td.compact(network, params, jnp.ones((1, 2)))
      >>> print(small.report)
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
    round_to = int(round_to)
    program, sizes, leaves = _read(apply_fn, params, example_inputs)
    forced = Forced()
    while True:
        analysis = analyse(program, sizes, leaves, forced)
        more = rounded(program, sizes, analysis, forced, round_to)
        if more == forced:
            reduced = _reduce(program, sizes, leaves, example_inputs, analysis)
            if grown(program, reduced.leaves, reduced.moved):
                more = recomputed(program, analysis, reduced.moved, forced)
        if more == forced:
            return _finish(apply_fn, params, program, sizes, forced, reduced)
        forced = more


def apply_plan(apply_fn: Callable[..., Any], params: Params, plan: Plan, *example_inputs: Any) -> Compact:
    """Repeat a compaction on other params of the same shapes, as of another checkpoint of one pruned network.

    Args:
      apply_fn: the function that was compacted.
      params: a tree of the same names and shapes. What the plan removes must be removable.
      plan: `Compact.plan`, possibly read from JSON.
      *example_inputs: as for `td.compact`.

    Returns:
      A `Compact` whose leaves have the plan's shapes.

    Raises:
      UserError: another function, other shapes, or params of which the plan would remove what matters.

    Example:
      >>> import json, jax.numpy as jnp, td
      >>> network = lambda params, x: jnp.maximum(x @ params["w1"], 0) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, 0.0]]), "w2": jnp.array([[1.0], [2.0]])}
      >>> plan = json.loads(json.dumps(td.compact(network, params, jnp.ones((1, 1))).plan))
      >>> params = {"w1": jnp.array([[5.0, 0.0]]), "w2": jnp.array([[1.0], [3.0]])}
      >>> td.apply_plan(network, params, plan, jnp.ones((1, 1))).params.params["w1"].tolist()
      [[5.0]]
    """
    check_plan(plan, params)
    program, sizes, leaves = _read(apply_fn, params, example_inputs)
    if plan["equations"] != [equation.name for equation in program.equations]:
        raise UserError("the plan is for another function: compact this one anew")
    forced = forced_of(plan)
    reduced = _reduce(program, sizes, leaves, example_inputs, analyse(program, sizes, leaves, forced))
    again = _finish(apply_fn, params, program, sizes, forced, reduced)
    if grown(program, reduced.leaves, reduced.moved):
        raise UserError("by the plan these params would take more numbers than they are: compact them again")
    if not same(plan, again.plan):
        raise UserError("these params do not have the plan's zeros: compact them anew, or mask them as those before")
    return again


def _read(
    apply_fn: Callable[..., Any], params: Params, example_inputs: Sequence[Any]
) -> tuple[Program, Sizes, list[Any]]:
    if not callable(apply_fn):
        raise UserError("the function comes first: td.compact(apply_fn, params, *example_inputs)")
    for path, leaf in _tree.named_leaves(params).items():
        if callable(leaf):
            raise UserError(
                f"{path!r} is a function, not an array: split an Equinox module by eqx.partition(model, eqx.is_array), "
                "give the arrays as params and combine the two parts within the function"
            )
        if isinstance(leaf, jax.core.Tracer):
            raise UserError("which entries stay is decided by their numbers: compact outside of jit, grad and vmap")
        if jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.inexact) and not np.isfinite(np.asarray(leaf)).all():
            raise UserError(f"{path!r} has NaN or infinity, of which nothing can be concluded: repair the params")
    for leaf in jax.tree.leaves(example_inputs):
        if isinstance(leaf, bool | str):
            raise UserError(f"{leaf!r} is a setting, not an input: give it within the function, and arrays here")
    shapes, inputs = abstract(params), abstract(tuple(example_inputs))
    program = trace(apply_fn, shapes, inputs)
    return program, probe(apply_fn, shapes, inputs, program), jax.tree.leaves(params)


class _Reduced(NamedTuple):
    """A program on what stays: smaller leaves with what they have taken over, and the other constants."""

    layout: Layout
    analysis: Analysis
    folds: list[Fold]
    leaves: list[Any]
    moved: Moved


def _reduce(
    program: Program, sizes: Sizes, leaves: list[Any], example_inputs: Sequence[Any], analysis: Analysis
) -> _Reduced:
    layout = layout_of(analysis, sizes)
    found = folds(program, analysis, layout)
    analysis, small = folded(program, analysis, found, small_leaves(program, layout, leaves))
    moved = moved_constants(program, analysis, layout, small, jax.tree.leaves(abstract(tuple(example_inputs))))
    return _Reduced(layout, analysis, found, small, moved)


def _finish(
    apply_fn: Callable[..., Any], params: Params, program: Program, sizes: Sizes, forced: Forced, reduced: _Reduced
) -> Compact:
    layout, analysis, found, small, moved = reduced
    paths, structure, flops = _tree.paths(params), jax.tree.structure(params), compacted_flops(program, layout)
    return Compact(
        _smaller(apply_fn, abstract(params), program, layout, sizes, moved),
        CompactParams(jax.tree.unflatten(structure, small), moved.trained),
        flops,
        report(program, paths, flops, analysis, small, moved),
        as_json(program, paths, layout, moved, analysis, forced, found),
    )


def _smaller(
    apply_fn: Callable[..., Any], shapes: Params, program: Program, layout: Layout, sizes: Sizes, moved: Moved
) -> Callable[..., Any]:
    """The smaller function: at every new size of the inputs the equations are traced again and run on what stays."""

    def apply(params: CompactParams, *inputs: Any) -> Any:
        if params.constants.keys() != moved.trained.keys():
            raise UserError(f"the constants of this network are {', '.join(moved.trained) or 'none'}: give these")
        for leaf, shape in zip(jax.tree.leaves(params.params), jax.tree.leaves(shapes), strict=True):
            if jax.dtypes.result_type(leaf) != shape.dtype:
                raise UserError(f"{leaf.dtype} params in place of {shape.dtype}: cast them, then compact")
        here = trace(apply_fn, shapes, abstract(inputs))
        if here.structure != program.structure:
            raise UserError(UNSEEN)
        _check_sizes(program, here, layout, sizes)
        constants = stored_constants(params.constants, moved)
        outputs = emit(here, layout, jax.tree.leaves(params.params), jax.tree.leaves(inputs), constants)
        return jax.tree.unflatten(here.out_tree, outputs)

    return jax.jit(apply)


def _check_sizes(program: Program, here: Program, layout: Layout, sizes: Sizes) -> None:
    """Refuse sizes on which what was removed, or a constant, depends."""
    fixed = all(
        size == now or (grows and size > 0)  # of an empty array nothing was seen
        for value, flags in sizes.dynamic_axes.items()
        for size, now, grows in zip(program.shape(value), here.shape(value), flags, strict=True)
    )
    numbers = (value for value in program.numbers if value not in sizes.size_dependent)
    windows = [
        [p.equations[eqn_index].params.get("window_dimensions") for eqn_index in layout.unpadded]
        for p in (program, here)
    ]
    if (
        not fixed
        or windows[0] != windows[1]
        or not all(same_number(program.numbers[value], here.numbers.get(value)) for value in numbers)
    ):
        raise UserError(UNSEEN)
