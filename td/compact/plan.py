"""Plans: the kept indices as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array

from td import _tree
from td.base import Params
from td.compact.analysis import Analysis, Forced
from td.compact.emit import Moved
from td.compact.order import Move
from td.errors import UserError
from td.program.equations import Program
from td.program.indices import KeptIndices

VERSION = 3
"""The version of the JSON."""

Plan = dict[str, Any]
"""JSON: `leaves`, `values` and `contracted` as `{name: {axis: indices}}`, null for entries that are not computed."""


def _written(lines: KeptIndices | None) -> dict[int, list[int]] | None:
    """The axes that lose indices."""
    return None if lines is None else {axis: line.tolist() for axis, line in enumerate(lines) if line is not None}


def as_json(program: Program, paths: Sequence[str], analysis: Analysis, moved: Moved, moves: Sequence[Move]) -> Plan:
    """The plan of a compaction."""
    names, named = [e.name for e in program.every], dict(zip(program.leaves, paths, strict=True))
    kept = {value: _written(lines) for value, lines in analysis.kept.items()}
    used = {eqn_index: _written(sums.used) for eqn_index, sums in analysis.contractions.items()}

    def constant(key: str, array: Array) -> dict[str, Any]:
        number = key.partition("/")[0]
        return {"equation": names[int(number)] if number.isdigit() else "output", "shape": array.shape}

    plan = {
        "version": VERSION,
        "leaves": {path: {"shape": program.shape(value), "kept": kept[value]} for value, path in named.items()},
        "values": {value: lines for value, lines in kept.items() if lines != {} and value not in named},
        "contracted": {eqn_index: lines for eqn_index, lines in used.items() if lines},
        "constants": {key: constant(key, array) for key, array in moved.arrays.items()},
        "folded": {eqn_index: named[leaf] for eqn_index, leaf in analysis.folds.items()},
        "frozen": {eqn_index: f"{names[eqn_index]} {why}" for eqn_index, why in analysis.frozen.items()},
        "equations": names,
        "forced": analysis.forced._asdict(),
        "moves": [{"order": order.tolist(), "leaves": leaves} for order, leaves in moves],
    }
    return json.loads(json.dumps(plan))  # keys as text


def forced_of(plan: Plan) -> Forced:
    """The forced indices of a plan."""
    values, contracted = (
        {int(i): {int(axis): line for axis, line in lines.items()} for i, lines in plan["forced"][kind].items()}
        for kind in ("values", "contracted")
    )
    return Forced(values, contracted, plan["forced"]["note"])


def moves_in(plan: Plan) -> list[Move]:
    """The moves of a plan."""
    return [Move(np.array(move["order"]), move["leaves"]) for move in plan["moves"]]


def check_version(plan: Plan) -> None:
    """Reject other JSON."""
    if not isinstance(plan, Mapping) or plan.get("version") != VERSION:
        raise UserError(
            f"this is not a plan of version {VERSION}: give the `plan` of a `td.Compact`, possibly through JSON"
        )


def check_shapes(plan: Plan, params: Params) -> None:
    """Reject leaves of other names or shapes."""
    shapes = {path: list(np.shape(leaf)) for path, leaf in _tree.named_leaves(params).items()}
    if {path: leaf["shape"] for path, leaf in plan["leaves"].items()} != shapes:
        raise UserError("the plan is for leaves of other names or shapes: compact these params again")
