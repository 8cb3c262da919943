"""The kernels of a tree, and the matrices `[*stack, fan_in, units]` that all methods work on."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import _tree
from td._kernel_axes import Kernel
from td._kernel_choice import KERNELS, UNKNOWN, Kernels, Patterns, choose, listed_patterns
from td.base import Params, RandomKey, Step
from td.errors import UserError
from td.structure import Structure


def find_kernels(params: Params, kernels: Patterns = KERNELS) -> dict[str, Kernel]:
    """Choose the kernels and the axes of each.

    Args:
      params: any pytree; a tree of shapes, as `jax.eval_shape` gives it, works too.
      kernels: regular expressions for whole components of paths (`Dense_1` matches `Dense_1/kernel` but not
        `Dense_10/kernel`, `.*` every path), `td.Kernels`, a method (the kernels that it masks), or several of these.

    Returns:
      `{path: view}`, in the tree's order.

    Raises:
      UserError: a pattern is malformed or matches no kernel; a leaf that it matches may be a kernel or not, or may be
        read in several ways; `td.KERNELS` leaves out no kernel, or several in one module.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"stem": {"kernel": jnp.ones((3, 2))}, "dense": {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)}}
      >>> find_kernels(params)
      {'dense/kernel': Kernel(shape=(2, 4), stacked=(), units=(-1,))}
      >>> list(find_kernels(params, "stem"))
      ['stem/kernel']
      >>> find_kernels(params, "den")
      Traceback (most recent call last):
        ...
      td.errors.UserError: pattern 'den' matches no kernel; the kernels are: dense/kernel, stem/kernel
    """
    choice = choose(params, kernels)
    if choice.error:
        raise UserError(choice.error)
    return choice.masked


def every(kernels: Patterns) -> Patterns:
    """Extend a choice to all kernels of a tree, first and last layers included; keeps the axes that it gives."""
    if (structure := structure_of(kernels)) is not None:
        return structure._replace(kernels=structure.every)
    return (".*", *(one for one in listed_patterns(kernels) if isinstance(one, Kernels)))


def structure_of(kernels: Patterns) -> Structure | None:
    """The structure in a choice of kernels, if there is one."""
    return next((one for one in listed_patterns(kernels) if isinstance(one, Structure)), None)


def select_kernels(params: Params, kernels: Patterns = KERNELS) -> dict[str, Any]:
    """Pick the leaves that are masked.

    Args:
      params: any pytree; a tree of shapes works too.
      kernels: which.

    Returns:
      `{path: leaf}`, in the tree's order.

    Raises:
      UserError: as `find_kernels`.

    Example:
      >>> import jax.numpy as jnp
      >>> list(select_kernels({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}, "dense"))
      ['dense/kernel']
    """
    leaves = _tree.named_leaves(params)
    return {path: leaves[path] for path in find_kernels(params, kernels)}


def matrices(params: Params, kernels: Patterns = KERNELS) -> dict[str, Array]:
    """The chosen kernels as the paper has them: units in the last axis, their fan-in in the one before.

    Args:
      params: any pytree.
      kernels: which.

    Returns:
      `{path: [*stack, fan_in, units]}`, in the tree's order.

    Raises:
      UserError: as `find_kernels`.

    Example:
      >>> import jax.numpy as jnp
      >>> matrices({"conv": {"kernel": jnp.ones((3, 3, 16, 32))}}, "conv")["conv/kernel"].shape
      (144, 32)
    """
    leaves = _tree.named_leaves(params)
    return {path: view.as_matrix(leaves[path]) for path, view in find_kernels(params, kernels).items()}


def replace_matrices(params: Params, replaced: Mapping[str, Array], kernels: Patterns = KERNELS) -> Params:
    """Return the tree with some kernels replaced, given as matrices.

    Args:
      params: any pytree.
      replaced: `{path: [*stack, fan_in, units]}`, all of it among the chosen kernels.
      kernels: which.

    Returns:
      A tree of the same structure.

    Raises:
      UserError: as `find_kernels`.

    Example:
      >>> import jax.numpy as jnp
      >>> replace_matrices({"w": jnp.ones((2, 1, 2))}, {"w": jnp.zeros((2, 2))}, Kernels("w"))["w"].shape
      (2, 1, 2)
    """
    known = find_kernels(params, kernels)
    return _tree.replace_leaves(params, {path: known[path].as_kernel(matrix) for path, matrix in replaced.items()})


def map_kernels(function: Callable[[str, Array], Array], params: Params, kernels: Patterns = KERNELS) -> Params:
    """Replace every chosen kernel by `function(path, matrix)` and leave the rest unchanged.

    Args:
      function: called once a kernel, with `[*stack, fan_in, units]`; gives an array of the same shape.
      params: any pytree.
      kernels: which.

    Returns:
      A tree of the same structure.

    Raises:
      UserError: as `find_kernels`.

    Example:
      >>> import jax.numpy as jnp
      >>> scaled = map_kernels(lambda path, w: w * w.shape[0], {"w": jnp.ones((4, 1)), "b": jnp.ones(1)}, "w")
      >>> scaled["w"].ravel().tolist(), scaled["b"].tolist()
      ([4.0, 4.0, 4.0, 4.0], [1.0])
    """
    mapped = {path: function(path, matrix) for path, matrix in matrices(params, kernels).items()}
    return replace_matrices(params, mapped, kernels)


def describe(params: Params, kernels: Patterns = KERNELS) -> str:
    """List every leaf of a tree, how it is read, and whether it is masked.

    Args:
      params: any pytree; a tree of shapes works too.
      kernels: which.

    Returns:
      A table of path, shape, view ("stack x [fan-in -> units]") and "masked", or why not; below it the error that
      `find_kernels` would raise.

    Raises:
      UserError: a pattern is malformed, or `Kernels` do not fit.

    Example:
      >>> import jax.numpy as jnp, td
      >>> params = {"dense": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}, "logits": {"kernel": jnp.ones((4, 2))}}
      >>> print(td.describe(params))
      path           shape   view    masked
      dense/bias     (4,)            no: fewer than two axes
      dense/kernel   (8, 4)  8 -> 4  yes
      logits/kernel  (4, 2)  4 -> 2  no: not among the chosen kernels
    """
    if isinstance(kernels, Structure):
        return str(kernels)
    choice, leaves = choose(params, kernels), _tree.named_leaves(params)
    lines = [("path", "shape", "view", "masked")]
    for path, reading in choice.readings.items():
        view = str(reading) if isinstance(reading, Kernel) else "?" if reading == UNKNOWN else ""
        if path not in choice.chosen and view:
            answer = "no: not among the chosen kernels"
        else:
            answer = "yes" if isinstance(reading, Kernel) else reading if reading == UNKNOWN else f"no: {reading}"
        lines.append((path, str(leaves[path].shape), view, answer))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    padded = ["  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[3]]) for line in lines]
    return "\n".join([*padded, *filter(None, [choice.error])])


def kernel_keys(key: RandomKey, step: Step, paths: Iterable[str]) -> dict[str, RandomKey]:
    """Derive the random keys of kernels at one step, `fold_in(fold_in(key, step), crc32(path))`.

    Each depends on the kernel's path and not on its position in the tree, so adding a layer changes no other mask.

    Args:
      key: the run's key.
      step: the step.
      paths: of the kernels, as `find_kernels` gives them.

    Returns:
      `{path: key}`.

    Example:
      >>> import jax
      >>> list(kernel_keys(jax.random.key(0), 1, ["conv/kernel", "dense/kernel"]))
      ['conv/kernel', 'dense/kernel']
    """
    paths = list(paths)
    hashes = jnp.array([zlib.crc32(path.encode()) for path in paths], jnp.uint32)
    # All at once: on an accelerator every scalar operation is a launch.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), hashes)
    return {path: keys[i] for i, path in enumerate(paths)}
