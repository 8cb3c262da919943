"""The choice of kernels by patterns, and errors with the lines to write where names leave something open."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from td import _tree
from td._kernel_axes import Kernel, NoKernel, Reading, Unknown, is_equinox_layer, read_leaf
from td.base import MaskTransform, Params
from td.errors import UserError
from td.structure import Structure

OUTER = r"stem|conv_stem|patch_embed\w*|embed|embedding|logits|head|lm_head|classifier|unembed\w*|W_U"
"""Names of first layers, embeddings and last layers."""

KERNELS = rf"^(?!(.*/)?({OUTER})(/|$))"
"""Every kernel but those of modules with the usual names of first layers, embeddings and last layers.

A tree where no kernel has such a name, or several in one module have, is an error that shows the line to write.
"""

BOUNDARY = "(?:^|$|(?<=/)|(?=/))"
"""Between two components of a path, or at its ends."""


class Kernels(NamedTuple):
    """A choice of kernels that names and shapes do not identify: all leaves that match, with these axes.

    Attributes:
      pattern: a regular expression for whole components of the path.
      stacked: axes along which independent kernels lie.
      units: axes that together count the output units; () excludes the matching leaves.

    Example:
      >>> import jax.numpy as jnp, td
      >>> params = {"experts": jnp.ones((4, 16, 8))}  # four experts, each 16 -> 8
      >>> mask = td.prune_mask(params, 0.5, kernels=td.Kernels("experts", stacked=(0,)))
      >>> mask["experts"].sum(axis=1)[0].tolist()
      [8, 8, 8, 8, 8, 8, 8, 8]
    """

    pattern: str
    stacked: tuple[int, ...] = ()
    units: tuple[int, ...] = (-1,)


Patterns = str | Kernels | Structure | MaskTransform | Sequence[str | Kernels | Structure | MaskTransform]
"""A `Structure`, regular expressions on paths, `Kernels`, a method (the kernels that it masks), or several of these.

An expression matches whole components: `Dense_1` matches `block/Dense_1/kernel` but not `Dense_10/kernel`, `Dense_.*`
matches both, and `.*` every path.
"""


class Choice(NamedTuple):
    """Patterns applied to a tree, unchecked."""

    listed: list[str | Kernels | Structure]
    shapes: dict[str, tuple[int, ...]]  # of all leaves that `Kernels` may name
    readings: dict[str, Reading]  # of all leaves, by names and shapes
    given: dict[str, Kernel | None]  # as `Kernels` say
    matches: dict[str, list[str]]  # pattern -> paths of the other leaves
    masked: dict[str, Kernel]  # in the tree's order


def choose(params: Params, kernels: Patterns) -> Choice:
    """Apply patterns to a tree."""
    listed, readings, shapes = listed_patterns(kernels), _readings(params), _shapes(params)
    given = _given(shapes, [one for one in listed if isinstance(one, Kernels)])
    for one in listed:
        given |= _traced(one, shapes) if isinstance(one, Structure) else {}
    others = [path for path in readings if path not in given]
    matches = {one: matching(one, others) for one in listed if isinstance(one, str)}
    chosen = set(given).union(*matches.values())
    views = {path: one for path, one in {**readings, **given}.items() if isinstance(one, Kernel)}
    masked = {path: view for path, view in views.items() if path in chosen}
    return Choice(listed, shapes, readings, given, matches, masked)


def find_question(choice: Choice) -> str | None:
    """Return the error of a choice that is wrong or leaves something open, else None."""
    listed, shapes, readings, given, matches, masked = choice
    matched = set().union(*matches.values())
    if unknown := {path: one for path, one in readings.items() if path in matched and isinstance(one, Unknown)}:
        return _ask_for_axes(unknown, shapes, _as_code(listed))
    for pattern, paths in matches.items():
        if masked.keys().isdisjoint([*paths, *matching(pattern, given)]):
            return f"pattern {pattern!r} matches no kernel; the kernels are: {_known(readings)}"
    excluded = any(view is None and isinstance(readings[path], Kernel) for path, view in given.items())
    if excluded or KERNELS not in matches:
        return None
    others = [path for path in readings if path not in given and path not in matched]
    left_out = [path for path in others if isinstance(readings[path], Kernel | Unknown)]
    return _ask_for_outer_layers(masked, left_out, _as_code(listed))


def _as_code(listed: Iterable[str | Kernels | Structure]) -> list[str]:
    """Patterns as a user writes them."""
    return [
        f"td.{one}" if isinstance(one, Kernels) else "td.KERNELS" if one == KERNELS else repr(one)
        for one in listed
        if not isinstance(one, Structure)
    ]


def _readings(params: Params) -> dict[str, Reading]:
    """Read every leaf by its name and the shapes around it, in the tree's order."""
    leaves = {path: leaf for path, leaf in _tree.named_leaves(params).items() if hasattr(leaf, "dtype")}
    shapes = {path: leaf.shape for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_equinox_layer)
    layers = {_tree.path_name(path): node for path, node in nodes if is_equinox_layer(node)}
    return {
        path: NoKernel("has no entries") if 0 in leaf.shape else read_leaf(path, leaf, shapes, layers)
        for path, leaf in leaves.items()
    }


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shapes of all leaves of floating point with two axes or more, and entries."""
    leaves = {path: leaf for path, leaf in _tree.named_leaves(params).items() if getattr(leaf, "ndim", 0) >= 2}
    return {path: leaf.shape for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size}


def _given(shapes: Mapping[str, tuple[int, ...]], chosen: Iterable[Kernels]) -> dict[str, Kernel | None]:
    """Read leaves as given by the user: a view, or None for those that are not masked. The last match wins."""
    found: dict[str, Kernel | None] = {}
    for one in chosen:
        matches = matching(one.pattern, shapes)
        if not matches:
            raise UserError(
                f"pattern {one.pattern!r} matches no floating-point leaf of two or more axes: {', '.join(shapes)}"
            )
        for path in matches:
            axes, shape = (*one.stacked, *one.units), shapes[path]
            known = all(-len(shape) <= axis < len(shape) for axis in axes)
            if not known or len({axis % len(shape) for axis in axes}) < len(axes) or len(axes) >= len(shape):
                raise UserError(f"{one} does not fit {path!r} {list(shape)}: name each axis once, and leave a fan-in")
            found[path] = Kernel(shape, tuple(one.stacked), tuple(one.units)) if one.units else None
    return found


def _traced(structure: Structure, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Kernel | None]:
    """The kernels of a structure."""
    for path, view in structure.every.items():
        if shapes.get(path) != view.shape:
            found = list(shapes[path]) if path in shapes else "missing"
            raise UserError(f"kernels were traced with other params: {path!r} was {list(view.shape)} and is {found}")
    if not structure.kernels:
        raise UserError("no kernel lies between first and last layers: give td.trace(..., include=('first',))")
    return dict(structure.kernels)


def listed_patterns(kernels: Patterns) -> list[str | Kernels | Structure]:
    """Patterns as a list, those of methods among them."""
    single = isinstance(kernels, str | Kernels | Structure | MaskTransform) or not isinstance(kernels, Iterable)
    listed: list[str | Kernels | Structure] = []
    for one in [kernels] if single else kernels:
        if isinstance(one, MaskTransform) and one.kernels is not None:
            listed += listed_patterns(one.kernels)
        elif isinstance(one, str | Kernels | Structure):
            listed.append(one)
        else:
            raise _not_a_pattern("a method without kernels" if isinstance(one, MaskTransform) else repr(one))
    if not listed:
        raise _not_a_pattern("nothing")
    return listed


def _not_a_pattern(shown: str) -> UserError:
    return UserError(f"kernels are chosen by regular expressions or td.Kernels, not by {shown}: say kernels=('conv',)")


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    """Search for whole components; `.` is short for `.*`."""
    try:
        whole = re.compile(f"{BOUNDARY}(?:{'.*' if pattern == '.' else pattern}){BOUNDARY}")
    except re.error as error:
        raise UserError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    return [path for path in paths if whole.search(path)]


def _known(readings: Mapping[str, Reading]) -> str:
    names = [path for path, reading in readings.items() if isinstance(reading, Kernel)]
    return ", ".join(names) or "(none: td.describe(params) says why)"


def _ask_for_axes(unknown: Mapping[str, Unknown], shapes: Mapping[str, tuple[int, ...]], given: Sequence[str]) -> str:
    """Write a `td.Kernels` for every open leaf, numbers as `\\d+` where one line serves all."""
    groups = defaultdict(list)
    for path, reading in unknown.items():
        groups[_any_number(path), reading.stacked, reading.units].append(path)
    lines = [f"{one}," for one in given]
    for (pattern, stacked, units), paths in groups.items():
        alike = {path for path in shapes if re.fullmatch(pattern, path)} == set(paths)
        axes = f"stacked={stacked}, units={units}" if stacked else f"units={units}"
        comment = f"{list(shapes[paths[0]])}: {unknown[paths[0]].why}"
        for one in [pattern] if alike else map(re.escape, paths):
            lines.append(f'td.Kernels(r"^{one}$", {axes}),  # {comment}')
    several = f"{len(unknown)} leaves" if len(unknown) > 1 else repr(next(iter(unknown)))
    return (
        "\n    ".join([f"cannot tell how to mask {several}: check these axes (units=() masks none); kernels=(", *lines])
        + "\n)"
    )


def _ask_for_outer_layers(masked: Collection[str], left_out: Iterable[str], given: Sequence[str]) -> str | None:
    """Ask where the usual names leave out no kernel, or several in one module; None where neither is so."""
    scopes = defaultdict(list)
    for path in left_out:
        outer = re.search(rf"^(.*?/)?({OUTER})(?=/|$)", path)
        scopes[outer.group() if outer else path].append(path)
    if not scopes:
        last, names = _last_layer(masked), ", ".join(sorted({_any_number(path) for path in masked}))
        return (
            f"no kernel is named as a first or last layer: say kernels={_leaving_out([last], given)} "
            f"if {last!r} is the last layer, or kernels='.*' to mask all of {names}"
        )
    for scope, paths in scopes.items():
        if len(paths) > 1 and not any(path.startswith(f"{scope}/") for path in masked):
            others, last = [other for other in scopes if other != scope], _last_layer(paths)
            return (
                f"{scope!r} holds {len(paths)} kernels: say kernels={_leaving_out([*others, last], given)} to mask "
                f"all but {last!r}, or kernels={_leaving_out([*others, scope], given)} to mask none of them"
            )
    return None


def _any_number(path: str) -> str:
    return re.sub(r"\d+", r"\\d+", re.escape(path))


def _last_layer(paths: Iterable[str]) -> str:
    """The module that comes last, `Dense_10` after `Dense_9`."""
    last = max(paths, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)])
    return last.rpartition("/")[0] or last


def _leaving_out(modules: Iterable[str], given: Sequence[str]) -> str:
    """Write the choice as code that leaves out these modules instead of those with usual names."""
    names = "|".join(map(re.escape, modules))
    pattern = repr(f"^(?!({names})(/|$))" if "|" in names else f"^(?!{names}(/|$))")
    parts = [pattern if one == "td.KERNELS" else one for one in given]
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
