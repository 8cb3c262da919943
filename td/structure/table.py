"""The structure as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHOWN = 3
"""Paths of a list that are printed."""


def table(structure: Any) -> str:
    """Kernels with their roles, groups with what makes and reads them, and the leaves that are neither."""
    kernels = [("kernel", "shape", "fan-in -> units", "role")]
    for path, view in structure.every.items():
        roles = [role for role in ("first", "last") if path in getattr(structure, role)]
        roles += [] if path in structure.kernels else ["not masked"]
        kernels.append((path, str(list(view.shape)), str(view), ", ".join(roles)))
    kernels += [(path, "", "", "embedding") for path in structure.embeddings]
    groups = [("groups", "rankings x width", "made by", "read by")]
    for name, numbers in structure.families.items():
        made, read = (_members(entries, numbers) for entries in (structure.units, structure.inputs))
        groups.append((name, " x ".join(map(str, numbers.shape)), _listed(made), _listed(read)))
    for name, numbers in structure.heads.items():
        size = len(structure.head_groups[numbers.flat[0]])
        groups.append((f"heads of {name}", " x ".join(map(str, numbers.shape)), f"{size} groups each", ""))
    blocks = [_aligned(kernels), _aligned(groups), _others(structure), structure.notes]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _others(structure: Any) -> list[str]:
    """Leaves that are neither kernels nor embeddings, those of a kind on one line."""
    kinds: dict[str, list[str]] = {}
    for path, why in structure.others.items():
        grouped = path in structure.scales or path in structure.offsets
        kinds.setdefault("a scale or an offset of a group" if grouped else why, []).append(path)
    return [f"{_listed(paths)}: {why}" for why, paths in kinds.items()]


def _members(tables: Mapping[str, Any], numbers: Any) -> list[str]:
    return [path for path, ids in tables.items() if np.isin(numbers, ids).any()]


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths) if len(paths) <= SHOWN + 1 else f"{', '.join(paths[:SHOWN])} and {len(paths) - SHOWN} more"


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    if len(lines) == 1:
        return []
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return ["  ".join([*map(str.ljust, line, widths), line[3]]).rstrip() for line in lines]
