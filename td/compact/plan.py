"""The plan: what stays, in a form that can be written as JSON, and back."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import _tree
from td.base import Params
from td.compact.analysis import Analysis, Forced
from td.compact.emit import Constants, Layout, emit
from td.compact.fold import Fold
from td.compact.program import Program
from td.compact.rules.base import everything, narrow
from td.compact.sizes import Sizes
from td.compact.values import Broadcastable, KeptIndices
from td.errors import UserError

VERSION = 1
"""Of the plan's form."""

UNSEEN = (
    "at these sizes the function may compute something else, as where a map is no longer resized or a table ends: "
    "compact with inputs of these sizes, or, for all lengths of a table, with inputs shorter than the table"
)
"""The error where outputs could differ."""

Plan = dict[str, Any]
"""JSON: `leaves`, `values` and `contracted` as `{name: {axis: indices}}`, null for what is not computed at all."""


def layout_of(analysis: Analysis, sizes: Sizes) -> Layout:
    """What emission needs of an analysis."""
    used = {eqn_index: contraction.used for eqn_index, contraction in analysis.contractions.items()}
    return Layout(analysis.kept, used, frozenset(analysis.frozen), analysis.unpadded, sizes)


def small_leaves(program: Program, layout: Layout, leaves: Sequence[Any]) -> list[Array]:
    """The leaves with the indices that stay; one that nothing needs keeps no entry."""
    small = []
    for value, leaf in zip(program.leaves, leaves, strict=True):
        kept = layout.kept[value]
        if jax.dtypes.issubdtype(jax.dtypes.result_type(leaf), jax.dtypes.extended):
            small.append(leaf if kept is None else narrow(leaf, everything(leaf.shape), kept))
            continue
        array = np.asarray(leaf)  # a device would compile a program for every shape
        if kept is None:
            array = array[..., :0] if array.ndim else array
        for axis, line in enumerate(kept or ()):
            array = array if line is None else np.take(array, line, axis)
        small.append(jnp.asarray(array))
    return small


class Moved(NamedTuple):
    """Constants of removed entries by the place they are used at: those that train, whole numbers and flags, zeros."""

    trained: dict[str, Array]
    fixed: dict[str, Array]
    zero: set[str]

    @property
    def arrays(self) -> dict[str, Array]:
        """All but the zeros."""
        return {**self.trained, **self.fixed}


def moved_constants(
    program: Program, analysis: Analysis, layout: Layout, leaves: Sequence[Array], inputs: Sequence[Any]
) -> Moved:
    """Emit once by shapes alone and write down which constants are asked for."""
    moved = Moved({}, {}, set())

    def keep(key: str, constant: Broadcastable, dtype: Any) -> Array | None:
        if not constant.any():
            moved.zero.add(key)
            return None
        into = moved.trained if jnp.issubdtype(dtype, jnp.inexact) else moved.fixed
        with jax.ensure_compile_time_eval():
            into[key] = jnp.asarray(constant, dtype)
        return into[key]

    def fill(key: str, value: int, lines: KeptIndices) -> Array | None:
        constant = analysis.values[value].constant
        for axis, line in enumerate(lines):
            if line is not None and constant.shape[axis] > 1:
                constant = np.take(constant, line, axis)
        return keep(key, constant, program.avals[value].dtype)

    def absorbed(eqn_index: int, name: str) -> Array | None:
        contraction = analysis.contractions.get(eqn_index)
        if contraction is None or name not in contraction.absorbed:
            return None
        dtype = program.avals[program.equations[eqn_index].outputs[0]].dtype
        return keep(f"{eqn_index}/{name}", contraction.absorbed[name], dtype)

    jax.eval_shape(lambda *arrays: emit(program, layout, leaves, arrays, Constants(fill, absorbed)), *inputs)
    return moved


def stored_constants(trained: Mapping[str, Array], moved: Moved) -> Constants:
    """Constants as the plan's first emission has written them down."""
    found = {**moved.fixed, **trained}

    def fill(key: str, value: int, lines: KeptIndices) -> Array | None:
        del value, lines
        if key not in found and key not in moved.zero:
            raise UserError(UNSEEN)
        return found.get(key)

    return Constants(fill, lambda eqn_index, name: found.get(f"{eqn_index}/{name}"))


def written(lines: KeptIndices | None) -> dict[str, list[int]] | None:
    """JSON of kept indices: the axes that lose any."""
    if lines is None:
        return None
    return {str(axis): line.tolist() for axis, line in enumerate(lines) if line is not None}


def as_json(
    program: Program,
    paths: Sequence[str],
    layout: Layout,
    moved: Moved,
    analysis: Analysis,
    forced: Forced,
    found: Sequence[Fold],
) -> Plan:
    """The plan of a layout."""
    values = {str(value): written(kept) for value, kept in layout.kept.items() if value not in program.leaves}
    names, named = [e.name for e in program.equations], dict(zip(program.leaves, paths, strict=True))
    return {
        "version": VERSION,
        "leaves": {
            path: {"shape": list(program.shape(value)), "kept": written(layout.kept[value])}
            for path, value in zip(paths, program.leaves, strict=True)
        },
        "values": {value: kept for value, kept in values.items() if kept != {}},
        "contracted": {str(eqn_index): kept for eqn_index, lines in layout.used.items() if (kept := written(lines))},
        "constants": {
            key: {"equation": _equation(key, names), "shape": list(array.shape)} for key, array in moved.arrays.items()
        },
        "folded": {str(fold.equation): named[fold.leaf] for fold in found},
        "frozen": {str(eqn_index): f"{names[eqn_index]} {why}" for eqn_index, why in analysis.frozen.items()},
        "equations": names,
        "rounded": {
            kind: {
                str(eqn_index): {str(axis): list(map(int, line)) for axis, line in lines.items()}
                for eqn_index, lines in of.items()
            }
            for kind, of in forced._asdict().items()
        },
    }


def _equation(key: str, names: Sequence[str]) -> str:
    eqn_index = key.partition("/")[0]
    return names[int(eqn_index)] if eqn_index.isdigit() else "output"


def forced_of(plan: Plan) -> Forced:
    """The indices that a plan's rounding has put back."""
    return Forced(*(_numbered(plan["rounded"][kind]) for kind in Forced._fields))


def _numbered(lines: Mapping[str, Mapping[str, Sequence[int]]]) -> dict[int, dict[int, Sequence[int]]]:
    return {int(eqn_index): {int(axis): line for axis, line in of.items()} for eqn_index, of in lines.items()}


def check_plan(plan: Plan, params: Params) -> None:
    """Refuse what is not a plan, and leaves of other names or shapes."""
    if not isinstance(plan, Mapping) or plan.get("version") != VERSION:
        raise UserError(
            f"this is not a plan of version {VERSION}: give the `plan` of a `td.Compact`, possibly through JSON"
        )
    shapes = {path: list(np.shape(leaf)) for path, leaf in _tree.named_leaves(params).items()}
    if {path: leaf["shape"] for path, leaf in plan["leaves"].items()} != shapes:
        raise UserError("the plan is for leaves of other names or shapes: compact these params anew")


def same(plan: Plan, other: Plan) -> bool:
    """Whether two plans keep the same."""
    return all(plan[part] == other[part] for part in ("leaves", "values", "contracted"))
