"""Which leaves of a tree are masked, and the matrices `[*stack, fan_in, units]` that all methods work on."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import tree
from td.base import Params
from td.errors import UserError
from td.kernel_views import KernelView, NoKernel, Reading, Unknown, is_equinox_layer, read_leaf

KERNELS = r"^(?!(.*/)?(stem|conv_stem|patch_embed\w*|embed|embedding|logits|head|lm_head|classifier|unembed\w*)(/|$))"
"""Every kernel but those of modules named as first layers, embeddings and last layers usually are."""


class Kernels(NamedTuple):
    """A choice of kernels whose names and shapes do not say enough: all leaves that match, read as given here.

    Attributes:
      pattern: a regular expression, searched in the path.
      stacked: axes along which independent kernels lie.
      units: axes that together count the output units; () leaves what matches alone.

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


Patterns = str | Kernels | Sequence[str | Kernels]
"""Which kernels: regular expressions on paths, `Kernels`, or several of either."""


def views(params: Params, kernels: Patterns = KERNELS) -> dict[str, KernelView]:
    """Choose the kernels and say how each is read.

    Args:
      params: any pytree; a tree of shapes, as `jax.eval_shape` gives it, works too.
      kernels: which.

    Returns:
      `{path: view}`, in the tree's order.

    Raises:
      UserError: a pattern is malformed or matches no kernel, or a leaf that it matches may be a kernel or not.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"stem": {"kernel": jnp.ones((3, 2))}, "dense": {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)}}
      >>> views(params)
      {'dense/kernel': KernelView(shape=(2, 4), stacked=(), units=(-1,))}
      >>> list(views(params, "stem"))
      ['stem/kernel']
      >>> views(params, "conv")
      Traceback (most recent call last):
        ...
      td.errors.UserError: pattern 'conv' matches no kernel; the kernels are: dense/kernel, stem/kernel
    """
    readings, given = _readings(params), _given(params, kernels)
    chosen = {path for path, view in given.items() if view is not None}
    for pattern in [one for one in _listed(kernels) if isinstance(one, str)]:
        matches = {path for path in readings if _search(pattern, path) and path not in given}
        for path in sorted(matches):
            reading = readings[path]
            if isinstance(reading, Unknown):
                raise UserError(_question(path, params, reading))
        found = {path for path in matches if isinstance(readings[path], KernelView)}
        if not (found or _matches(pattern, [path for path, view in given.items() if view is not None])):
            raise UserError(f"pattern {pattern!r} matches no kernel; the kernels are: {_known(readings)}")
        chosen |= found
    seen = {**readings, **given}
    return {path: view for path, view in seen.items() if path in chosen and isinstance(view, KernelView)}


def _readings(params: Params) -> dict[str, Reading]:
    """What every leaf looks like by itself, in the tree's order."""
    leaves = {path: leaf for path, leaf in tree.named_leaves(params).items() if hasattr(leaf, "dtype")}
    shapes = {path: leaf.shape for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_equinox_layer)
    layers = {tree.path_name(path): node for path, node in nodes if is_equinox_layer(node)}
    return {
        path: NoKernel("has no entries") if 0 in leaf.shape else read_leaf(path, leaf, shapes, layers)
        for path, leaf in leaves.items()
    }


def _given(params: Params, kernels: Patterns) -> dict[str, KernelView | None]:
    """What the user says of leaves: a view, or None for those to be left alone. The last word counts."""
    found: dict[str, KernelView | None] = {}
    leaves = {path: leaf for path, leaf in tree.named_leaves(params).items() if getattr(leaf, "ndim", 0) >= 2}
    leaves = {path: leaf for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size}
    for one in [one for one in _listed(kernels) if isinstance(one, Kernels)]:
        matches = _matches(one.pattern, leaves)
        if not matches:
            raise UserError(
                f"pattern {one.pattern!r} matches no floating-point leaf of two or more axes: {', '.join(leaves)}"
            )
        for path in matches:
            axes, shape = (*one.stacked, *one.units), leaves[path].shape
            known = all(-len(shape) <= axis < len(shape) for axis in axes)
            if not known or len({axis % len(shape) for axis in axes}) < len(axes) or len(axes) >= len(shape):
                raise UserError(f"{one} does not fit {path!r} {list(shape)}: name each axis once, and leave a fan-in")
            found[path] = KernelView(shape, tuple(one.stacked), tuple(one.units)) if one.units else None
    return found


def _listed(kernels: Patterns) -> list[str | Kernels]:
    if isinstance(kernels, str | Kernels):
        return [kernels]
    listed = list(kernels) if isinstance(kernels, Iterable) and not isinstance(kernels, bytes) else [kernels]
    wrong = [one for one in listed if not isinstance(one, str | Kernels)]
    if wrong or not listed:
        shown = repr(wrong[0]) if wrong else "nothing"
        raise UserError(
            f"kernels are chosen by regular expressions or td.Kernels, not by {shown}: say kernels=('conv',)"
        )
    return listed


def _search(pattern: str, path: str) -> bool:
    try:
        return re.search(pattern, path) is not None
    except re.error as error:
        raise UserError(f"pattern {pattern!r} is not a regular expression: {error}") from None


def _matches(pattern: str, named: Iterable[str]) -> list[str]:
    return [path for path in named if _search(pattern, path)]


def _known(readings: Mapping[str, Reading]) -> str:
    names = [path for path, reading in readings.items() if isinstance(reading, KernelView)]
    return ", ".join(names) or "(none: td.describe(params) says why)"


def _question(path: str, params: Params, reading: Unknown) -> str:
    shape, exact = list(tree.named_leaves(params)[path].shape), f"^{re.escape(path)}$"
    return (
        f"cannot tell whether {path!r} {shape} is a kernel: {reading.why}; say kernels=(td.KERNELS, "
        f"td.Kernels({exact!r}, units=(-1,))) with its own axes to mask it, or units=() to leave it alone"
    )


def every(kernels: Patterns) -> Patterns:
    """All kernels of a tree, first and last layers included, read as some choice of kernels says.

    Args:
      kernels: the choice.

    Returns:
      Patterns.

    Example:
      >>> every(("^body/", Kernels("experts", stacked=(0,))))
      ('.', Kernels(pattern='experts', stacked=(0,), units=(-1,)))
    """
    return (".", *(one for one in _listed(kernels) if isinstance(one, Kernels)))


def select_kernels(params: Params, kernels: Patterns = KERNELS) -> dict[str, Any]:
    """Pick the leaves that are masked.

    Args:
      params: any pytree; a tree of shapes works too.
      kernels: which.

    Returns:
      `{path: leaf}`, in the tree's order.

    Raises:
      UserError: as `views`.

    Example:
      >>> import jax.numpy as jnp
      >>> list(select_kernels({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}))
      ['dense/kernel']
    """
    leaves = tree.named_leaves(params)
    return {path: leaves[path] for path in views(params, kernels)}


def matrices(params: Params, kernels: Patterns = KERNELS) -> dict[str, Array]:
    """The chosen kernels as the paper has them: units in the last axis, their fan-in in the one before.

    Args:
      params: any pytree.
      kernels: which.

    Returns:
      `{path: [*stack, fan_in, units]}`, in the tree's order.

    Raises:
      UserError: as `views`.

    Example:
      >>> import jax.numpy as jnp
      >>> matrices({"conv": {"kernel": jnp.ones((3, 3, 16, 32))}})["conv/kernel"].shape
      (144, 32)
    """
    leaves = tree.named_leaves(params)
    return {path: view.as_matrix(leaves[path]) for path, view in views(params, kernels).items()}


def replace_matrices(params: Params, replaced: Mapping[str, Array], kernels: Patterns = KERNELS) -> Params:
    """Return the tree with some kernels replaced, given as matrices.

    Args:
      params: any pytree.
      replaced: `{path: [*stack, fan_in, units]}`, all of it among the chosen kernels.
      kernels: which.

    Returns:
      A tree of the same structure.

    Raises:
      UserError: as `views`.

    Example:
      >>> import jax.numpy as jnp
      >>> replace_matrices({"w": jnp.ones((2, 1, 2))}, {"w": jnp.zeros((2, 2))}, Kernels("w"))["w"].shape
      (2, 1, 2)
    """
    known = views(params, kernels)
    return tree.replace_leaves(params, {path: known[path].as_kernel(matrix) for path, matrix in replaced.items()})


def map_kernels(function: Callable[[str, Array], Array], params: Params, kernels: Patterns = KERNELS) -> Params:
    """Replace every chosen kernel by `function(path, matrix)` and leave the rest alone.

    Args:
      function: called once a kernel, with `[*stack, fan_in, units]`; gives an array of the same shape.
      params: any pytree.
      kernels: which.

    Returns:
      A tree of the same structure.

    Raises:
      UserError: as `views`.

    Example:
      >>> import jax.numpy as jnp
      >>> scaled = map_kernels(lambda path, w: w * w.shape[0], {"w": jnp.ones((4, 1)), "b": jnp.ones(1)})
      >>> scaled["w"].ravel().tolist(), scaled["b"].tolist()
      ([4.0, 4.0, 4.0, 4.0], [1.0])
    """
    mapped = {path: function(path, matrix) for path, matrix in matrices(params, kernels).items()}
    return replace_matrices(params, mapped, kernels)


def describe(params: Params, kernels: Patterns = KERNELS) -> str:
    """Say of every leaf of a tree whether it is masked, and how it is read.

    Args:
      params: any pytree; a tree of shapes works too.
      kernels: which.

    Returns:
      A table of path, shape, view ("stack x [fan-in -> units]") and "masked", or why not.

    Raises:
      UserError: a pattern is malformed, or `Kernels` do not fit.

    Example:
      >>> import jax.numpy as jnp, td
      >>> print(td.describe({"dense": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}, "decay": jnp.ones((4, 2))}))
      path          shape   view    masked
      decay         (4, 2)  ?       'decay' is not a name that Flax, Haiku or Equinox give to kernels
      dense/bias    (4,)            no: fewer than two axes
      dense/kernel  (8, 4)  8 -> 4  yes
    """
    given, texts = _given(params, kernels), [one for one in _listed(kernels) if isinstance(one, str)]
    lines, leaves = [("path", "shape", "view", "masked")], tree.named_leaves(params)
    for path, reading in {**_readings(params), **given}.items():
        shape = str(leaves[path].shape)
        chosen = path in given or any(_search(pattern, path) for pattern in texts)
        if isinstance(reading, KernelView):
            lines.append((path, shape, str(reading), "yes" if chosen else "no: not among the chosen kernels"))
        elif isinstance(reading, NoKernel):
            lines.append((path, shape, "", f"no: {reading.why}"))
        elif reading is None:
            lines.append((path, shape, "", "no: left alone as given"))
        else:
            lines.append((path, shape, "?", reading.why if chosen else "no: not among the chosen kernels"))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    padded = ["  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[3]]) for line in lines]
    return "\n".join(padded)
