"""The structure as a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def table(structure: Any) -> str:
    """Kernels with their roles, groups with those that write and read them, and the leaves that are neither."""
    lines = [("kernel", "shape", "view", "role")]
    for path, view in structure.every.items():
        roles = [role for role, paths in (("first", structure.first), ("last", structure.last)) if path in paths]
        state = "" if path in structure.kernels else "not masked"
        lines.append((path, str(list(view.shape)), str(view), ", ".join(filter(None, [*roles, state])) or "masked"))
    lines += [(path, "", "", "embedding") for path in structure.embeddings]
    lines += [(path, "", "", why) for path, why in structure.others.items()]
    groups = [("groups", "rankings x width", "made by", "read by")]
    for name, numbers in structure.families.items():
        made, read = (_members(t, numbers) for t in (structure.units, structure.inputs))
        groups.append((name, " x ".join(map(str, numbers.shape)), _listed(made), _listed(read)))
    for name, numbers in structure.heads.items():
        size = len(structure.head_groups[numbers.flat[0]])
        groups.append((f"heads of {name}", f"{numbers.size}", f"{size} groups each", ""))
    return "\n".join([*_aligned(lines), "", *_aligned(groups), *structure.notes])


def _members(tables: Any, numbers: Any) -> list[str]:
    return [path for path, ids in tables.items() if np.isin(numbers, ids).any()]


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths) if len(paths) <= 4 else f"{', '.join(paths[:3])} and {len(paths) - 3} more"


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[3]]).rstrip() for line in lines
    ]
