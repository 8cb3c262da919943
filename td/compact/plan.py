"""Plans: smaller leaves, moved constants, and both as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import tree
from td.base import Params
from td.compact.analysis import Analysis, Forced
from td.compact.emit import Constants, emit
from td.compact.indices import Broadcastable, KeptIndices, everything, narrow, take_kept
from td.compact.program import Program
from td.compact.values import is_key
from td.errors import UserError

VERSION = 1
"""The version of the JSON."""

UNSEEN = (
    "at these sizes the function may compute something else, as where a map is no longer resized or a table ends: "
    "compact with inputs of these sizes, or, for all lengths of a table, with inputs shorter than the table"
)
"""The error where outputs could differ."""

Plan = dict[str, Any]
"""JSON: `leaves`, `values` and `contracted` as `{name: {axis: indices}}`, null for entries that are not computed."""


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
    """Constants of removed entries by the place that uses them: floats, which train, other dtypes, and zeros."""

    trained: dict[str, Array]
    fixed: dict[str, Array]
    zero: set[str]

    @property
    def arrays(self) -> dict[str, Array]:
        """All but the zeros."""
        return {**self.trained, **self.fixed}


def moved_constants(program: Program, analysis: Analysis, leaves: Sequence[Array], inputs: Sequence[Any]) -> Moved:
    """Emit once by shapes alone and record the constants that are requested."""
    moved = Moved({}, {}, set())

    def record(key: str, compute: Callable[[], Broadcastable | None], dtype: Any) -> Array | None:
        constant = compute()
        if constant is None or not constant.any():
            moved.zero.add(key)
            return None
        into = moved.trained if jnp.issubdtype(dtype, jnp.inexact) else moved.fixed
        with jax.ensure_compile_time_eval():
            into[key] = jnp.asarray(constant, dtype)
        return into[key]

    jax.eval_shape(lambda *arrays: emit(program, analysis, leaves, arrays, record), *inputs)
    return moved


def stored_constants(trained: Mapping[str, Array], moved: Moved) -> Constants:
    """The constants that were recorded."""
    found = {**moved.fixed, **trained}

    def look_up(key: str, compute: Callable[[], Broadcastable | None], dtype: Any) -> Array | None:
        if key not in found and key not in moved.zero:
            raise UserError(UNSEEN)
        return found.get(key)

    return look_up


def _written(lines: KeptIndices | None) -> dict[int, list[int]] | None:
    """The axes that lose indices."""
    return None if lines is None else {axis: line.tolist() for axis, line in enumerate(lines) if line is not None}


def as_json(program: Program, paths: Sequence[str], analysis: Analysis, moved: Moved) -> Plan:
    """The plan of a compaction."""
    names, named = [e.name for e in program.equations], dict(zip(program.leaves, paths, strict=True))
    kept = {value: _written(lines) for value, lines in analysis.kept.items()}
    used = {eqn_index: _written(sums.used) for eqn_index, sums in analysis.contractions.items()}

    def constant(key: str, array: Array) -> dict[str, Any]:
        eqn_index = key.partition("/")[0]
        return {"equation": names[int(eqn_index)] if eqn_index.isdigit() else "output", "shape": array.shape}

    plan = {
        "version": VERSION,
        "leaves": {path: {"shape": program.shape(value), "kept": kept[value]} for value, path in named.items()},
        "values": {value: lines for value, lines in kept.items() if lines != {} and value not in named},
        "contracted": {eqn_index: lines for eqn_index, lines in used.items() if lines},
        "constants": {key: constant(key, array) for key, array in moved.arrays.items()},
        "folded": {eqn_index: named[leaf] for eqn_index, leaf in analysis.folds.items()},
        "frozen": {eqn_index: f"{names[eqn_index]} {why}" for eqn_index, why in analysis.frozen.items()},
        "equations": names,
        "rounded": analysis.forced._asdict(),
    }
    return json.loads(json.dumps(plan))  # keys as text


def forced_of(plan: Plan) -> Forced:
    """The forced indices of a plan."""
    return Forced(
        *(
            {int(i): {int(axis): line for axis, line in lines.items()} for i, lines in plan["rounded"][kind].items()}
            for kind in Forced._fields
        )
    )


def check_plan(plan: Plan, params: Params) -> None:
    """Reject other JSON, and leaves of other names or shapes."""
    if not isinstance(plan, Mapping) or plan.get("version") != VERSION:
        raise UserError(
            f"this is not a plan of version {VERSION}: give the `plan` of a `td.Compact`, possibly through JSON"
        )
    shapes = {path: list(np.shape(leaf)) for path, leaf in tree.named_leaves(params).items()}
    if {path: leaf["shape"] for path, leaf in plan["leaves"].items()} != shapes:
        raise UserError("the plan is for leaves of other names or shapes: compact these params again")
