"""The choice of kernels: by a structure, by hand, or by names where there is no function to trace.

* `kernel`, `w`, `w_...` (Flax, Haiku): the units are the axes that the bias has, else the last of a matrix or a window.
* `weight` (Equinox): the first axis in layers of `equinox.nn`, elsewhere the first or last, whichever the bias has.
* Never kernels: biases, scales, embeddings, positions, tokens, norms, `lora_...`, vectors. All else is `UNKNOWN`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from td import _tree
from td._kernel_axes import Kernel
from td.base import MaskTransform, Params
from td.errors import UserError
from td.structure import Structure

OUTER = r"stem|conv_stem|patch_embed\w*|embed|embedding|logits|head|lm_head|classifier|unembed\w*|W_U"
"""Names of first layers, embeddings and last layers."""

KERNELS = rf"^(?!(.*/)?({OUTER})(/|$))"
"""Every kernel but those of modules with the usual names of first layers, embeddings and last layers.

A tree where no kernel has such a name, or several in one module have, is an error.
"""

BOUNDARY = "(?:^|$|(?<=/)|(?=/))"
"""Between two components of a path, or at its ends."""

KERNEL_NAME = re.compile(r"kernel|[wW](_\w+|\d+)?")
WEIGHT_NAME = re.compile(r"weights?(_ih|_hh)?")
VECTOR_NAME = re.compile(r"(bias|b|offset|beta|scale|gamma)(_\w+|\d+)?")
TABLE_NAME = re.compile(r"embed|^pos|position|^cls|token|^probe$|codebook|(^|_)(emb|pos)(s?$|_)|^w(?-i:_E)$", re.I)
TABLE_MODULE = re.compile(r"emb(ed|s?$|_)|position|codebook", re.IGNORECASE)
NORM_MODULE = re.compile(r"norm(_?\d+)?$", re.IGNORECASE)
NO_WINDOW = re.compile(r"einsum|attn|attention|qkv|query|key|value|(^|/)out$|(^|[/_])kv|expert|moe", re.IGNORECASE)

UNKNOWN = "cannot tell its axes from its name"
INSTEAD = "give kernels=td.trace(apply_fn, params, inputs), or"

Shapes = Mapping[str, tuple[int, ...]]
Reading = Kernel | str
"""A kernel, or why a leaf is none; UNKNOWN where it may be one."""


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
    """Patterns applied to a tree."""

    readings: dict[str, Reading]  # of all leaves, in the tree's order
    chosen: set[str]  # paths that the patterns match
    masked: dict[str, Kernel]  # the kernels among them
    error: str | None  # of what is wrong or left open


def choose(params: Params, kernels: Patterns) -> Choice:
    """Apply patterns to a tree."""
    listed, leaves = listed_patterns(kernels), _tree.named_leaves(params)
    leaves = {path: leaf for path, leaf in leaves.items() if hasattr(leaf, "dtype")}
    floating = {path: leaf.shape for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    shapes = {path: shape for path, shape in floating.items() if 0 not in shape}
    named: dict[str, Reading] = dict.fromkeys(leaves, "no entries of floating point")
    if not all(isinstance(one, Structure) for one in listed):
        named |= _by_name(params, shapes)
    given: dict[str, Reading] = {}
    for one in sorted((one for one in listed if not isinstance(one, str)), key=lambda one: isinstance(one, Structure)):
        given |= _traced(one, shapes) if isinstance(one, Structure) else _by_hand(one, shapes)
    readings, matches = named | given, {one: matching(one, leaves) for one in listed if isinstance(one, str)}
    chosen = set(given).union(*matches.values())
    masked = {path: one for path, one in readings.items() if isinstance(one, Kernel) and path in chosen}
    unknown = [f"{path!r} {list(shapes[path])}" for path, one in readings.items() if one == UNKNOWN and path in chosen]
    without = [pattern for pattern, paths in matches.items() if masked.keys().isdisjoint(paths)]
    error = None
    if unknown:
        more = f" and of {len(unknown) - 1} more" if unknown[1:] else ""
        hint = f"{INSTEAD} td.Kernels(pattern, stacked=..., units=...), where units=() masks none"
        error = f"cannot tell the axes of {unknown[0]}{more} from its name: {hint}"
    elif without:
        known = ", ".join(path for path, one in named.items() if isinstance(one, Kernel))
        known = known or "(none: td.describe(params) says why)"
        error = f"pattern {without[0]!r} matches no kernel; the kernels are: {known}"
    elif KERNELS in matches:
        open_ = [
            path for path, one in named.items() if isinstance(one, Kernel) or (one == UNKNOWN and path not in given)
        ]
        error = _outer_error(masked, [path for path in open_ if path not in masked], given)
    return Choice(readings, chosen, masked, error)


def _outer_error(masked: Collection[str], left_out: Iterable[str], given: Collection[str]) -> str | None:
    """Find that usual names leave out no kernel, or several of one module."""
    modules = defaultdict(list)
    for path in left_out:
        outer = re.search(rf"^(.*?/)?({OUTER})(?=/|$)", path)
        modules[outer.group() if outer and path not in given else path].append(path)
    if not modules:
        return f"no kernel is named as a first or last layer: {INSTEAD} a pattern; '.*' masks all kernels"
    for module, paths in modules.items():
        if len(paths) > 1 and not any(path.startswith(f"{module}/") for path in masked):
            return f"{module!r} holds {len(paths)} kernels, maybe not all of them last layers: {INSTEAD} a pattern"
    return None


def _by_hand(one: Kernels, shapes: Shapes) -> dict[str, Reading]:
    """Read leaves as given by the user."""
    matrices = [path for path, shape in shapes.items() if len(shape) > 1]
    matches, stacked, units = matching(one.pattern, matrices), tuple(one.stacked), tuple(one.units)
    if not matches:
        listing = ", ".join(matrices)
        raise UserError(f"pattern {one.pattern!r} matches no floating-point leaf of two or more axes: {listing}")
    for path in matches:
        rank, axes = len(shapes[path]), stacked + units
        known = all(-rank <= axis < rank for axis in axes)
        if not known or len({axis % rank for axis in axes}) < len(axes) or len(axes) >= rank:
            raise UserError(
                f"{one} does not fit {path!r} {list(shapes[path])}: name each axis once, and leave a fan-in"
            )
    return {path: Kernel(shapes[path], stacked, units) if units else "excluded by td.Kernels" for path in matches}


def _traced(structure: Structure, shapes: Shapes) -> dict[str, Reading]:
    """The kernels of a structure."""
    for path, view in structure.every.items():
        if shapes.get(path) != view.shape:
            found = list(shapes[path]) if path in shapes else "missing"
            raise UserError(f"kernels were traced with other params: {path!r} was {list(view.shape)} and is {found}")
    if not structure.kernels:
        raise UserError("no kernel lies between first and last layers: give td.trace(..., include=('first',))")
    return dict(structure.kernels)


def listed_patterns(kernels: Any) -> list[str | Kernels | Structure]:
    """Patterns as a list, those of methods among them."""
    if isinstance(kernels, str | Kernels | Structure):
        return [kernels]
    if isinstance(kernels, MaskTransform) and kernels.kernels is not None:
        return listed_patterns(kernels.kernels)
    several = isinstance(kernels, Iterable) and not isinstance(kernels, MaskTransform)
    if found := [each for one in (kernels if several else ()) for each in listed_patterns(one)]:
        return found
    wanted = "td.trace(...), regular expressions, td.Kernels or a method with kernels"
    raise UserError(f"kernels are chosen by {wanted}, not by {kernels!r}: say kernels=('conv',)")


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    """Search for whole components; `.` is short for `.*`."""
    try:
        whole = re.compile(f"{BOUNDARY}(?:{'.*' if pattern == '.' else pattern}){BOUNDARY}")
    except re.error as error:
        raise UserError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    return [path for path in paths if whole.search(path)]


def _by_name(params: Params, shapes: Shapes) -> dict[str, Reading]:
    """Read all leaves by name; where one bias shows units before the fan-in, no other kernel of such a name is sure."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_equinox_layer)
    layers = {_tree.path_name(path): node for path, node in nodes if _is_equinox_layer(node)}
    read = {path: _read(path, shapes, layers.get(path.rpartition("/")[0])) for path in shapes}
    named = [path for path, one in read.items() if not isinstance(one, str) and _of_kernel(path)]
    turned = (path for path, one in shapes.items() if _of_kernel(path) and one[-2:-1] != one[-1:])
    unsure = any(_bias_of(path, shapes) == shapes[path][:-1] for path in turned)
    return read | dict.fromkeys(named if unsure else [], UNKNOWN)


def _is_equinox_layer(node: Any) -> bool:
    """Recognise a layer of `equinox.nn` with weights of its own; Equinox itself is not imported."""
    own = any(hasattr(node, name) for name in ("weight", "weight_ih"))
    return own and type(node).__module__.startswith("equinox.nn")


def _of_kernel(path: str) -> bool:
    return bool(KERNEL_NAME.fullmatch(path.rpartition("/")[2]))


def _read(path: str, shapes: Shapes, layer: Any) -> Reading:
    """Read a leaf by its name, its bias and the layer of `equinox.nn` that it lies in."""
    module, _, name = path.rpartition("/")
    shape, last, bias = shapes[path], module.rpartition("/")[2], _bias_of(path, shapes)
    weight, matrix = WEIGHT_NAME.fullmatch(name), len(shape) == 2 and bias is None
    if len(shape) < 2:
        return "fewer than two axes"
    if name.startswith("lora_"):
        return "one factor of a low-rank pair"
    if weight and layer is not None:  # its type says how many axes one layer has
        stacked = len(shape) - 2 - getattr(layer, "num_spatial_dims", 0)
        kernel = re.search("Linear|Cell|Conv", kind := type(layer).__name__)
        return Kernel(shape, tuple(range(stacked)), (stacked,)) if kernel else f"the weight of an equinox.nn.{kind}"
    if VECTOR_NAME.fullmatch(name):
        return "a bias or a scale"
    if TABLE_NAME.search(name) or (weight and TABLE_NAME.search(last)):
        return "an embedding, position or token"
    if weight:
        ends = [axis for axis in (0, -1) if bias == (shape[axis],)]
        return Kernel(shape, units=(ends[0],)) if len(ends) == 1 else UNKNOWN
    if not _of_kernel(path) or (name == "w" and "transpose" in last):  # Haiku's convolutions have the units first
        return UNKNOWN
    if matrix and NORM_MODULE.search(last):
        return "the scale of a norm"
    if matrix and TABLE_MODULE.search(last):
        return UNKNOWN
    if bias is None:
        return Kernel(shape) if matrix or _is_window(path, shapes) else UNKNOWN
    counts = [(len(bias) - units, units) for units in range(1, len(bias) + 1) if len(bias) < len(shape)]
    fits = [(stacked, units) for stacked, units in counts if bias == shape[:stacked] + shape[-units:]]
    return Kernel(shape, tuple(range(fits[0][0])), tuple(range(-fits[0][1], 0))) if len(fits) == 1 else UNKNOWN


def _bias_of(path: str, shapes: Shapes) -> tuple[int, ...] | None:
    """The shape of a kernel's bias; that of `w1` may be `b1`."""
    start, name = path[: path.rfind("/") + 1], path.rpartition("/")[2]
    return next((shapes[start + one] for one in (f"b{name[1:]}", "bias", "b") if start + one in shapes), None)


def _is_window(path: str, shapes: Shapes) -> bool:
    """Test for a convolution's window, by its name or by odd sizes, where no norm is stacked to as many layers."""
    shape, module = shapes[path], path.rpartition("/")[0]
    vectors = [other for name, other in shapes.items() if VECTOR_NAME.fullmatch(name.rpartition("/")[2])]
    if any(len(other) > 1 and other[0] == shape[0] for other in vectors):
        return False
    window, square = shape[:-2], len({*shape[:-2]}) == 1
    if "conv" in module.rpartition("/")[2].lower():
        return len(window) < 3 and (square or 1 in window)
    return square and len(window) == 2 and window[0] in (1, 3, 5, 7, 9, 11) and not NO_WINDOW.search(module)
