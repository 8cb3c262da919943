"""Path names, the choice of kernels, the `[fan_in, units]` view and one random key per kernel.

A *kernel* is a floating-point leaf of two or more dimensions whose path matches a pattern. Everything that masks
works on a plain dict `{path: kernel}`, so that any pytree will do.
"""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from td.base import Params, RandomKey, Step
from td.errors import UserError

Patterns = str | Sequence[str]

KERNELS = r"^(?!(.*/)?(stem|logits|embedding)(/|$))"
"""Every kernel but those of a module called `stem` (first convolution) or `logits` (last layer), and embeddings."""


def paths(params: Params) -> list[str]:
    """Name the leaves of a tree, in flattening order.

    Args:
      params: any pytree.

    Returns:
      One name a leaf, its keys joined by `/`.

    Example:
      >>> paths({"block": ({"kernel": 1.0}, None), "bias": [2.0]})
      ['bias/0', 'block/0/kernel']
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]


def _can_be_kernel(leaf: object) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and getattr(leaf, "ndim", 0) >= 2


def select_kernels(params: Params, patterns: Patterns = KERNELS) -> dict[str, Any]:
    """Pick the kernels whose path matches any of the regular expressions.

    Args:
      params: any pytree; only floating-point leaves of two or more dimensions can be kernels.
      patterns: one regular expression or several, searched in the path name.

    Returns:
      `{path: kernel}`, in the tree's order. A tree of shapes, as `jax.eval_shape` gives it, works too.

    Raises:
      UserError: a pattern is malformed, or matches no kernel.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"stem": {"kernel": jnp.ones((3, 2))}, "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
      >>> list(select_kernels(params))
      ['dense/kernel']
      >>> list(select_kernels(params, "stem"))
      ['stem/kernel']
      >>> select_kernels(params, "conv")
      Traceback (most recent call last):
        ...
      td.errors.UserError: pattern 'conv' matches no kernel; the kernels are: dense/kernel, stem/kernel
    """
    named = zip(paths(params), jax.tree.leaves(params), strict=True)
    candidates = {path: leaf for path, leaf in named if _can_be_kernel(leaf)}
    chosen = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            matches = {path for path in candidates if re.search(pattern, path)}
        except re.error as error:
            raise UserError(f"pattern {pattern!r} is not a regular expression: {error}") from None
        if not matches:
            known = ", ".join(candidates) or "(none: a kernel is a floating-point array of two or more dimensions)"
            raise UserError(f"pattern {pattern!r} matches no kernel; the kernels are: {known}")
        chosen |= matches
    return {path: leaf for path, leaf in candidates.items() if path in chosen}


def replace_kernels(params: Params, kernels: Mapping[str, Array]) -> Params:
    """Return the tree with the named leaves replaced.

    Args:
      params: any pytree.
      kernels: `{path: new leaf}`.

    Returns:
      A tree of the same structure.

    Example:
      >>> import jax.numpy as jnp
      >>> replace_kernels({"a": 1, "b": [2, jnp.ones((1, 2))]}, {"b/1": jnp.zeros((1, 2))})
      {'a': 1, 'b': [2, Array([[0., 0.]], dtype=float32)]}
    """
    leaves, treedef = jax.tree.flatten(params)
    replaced = [kernels.get(path, leaf) for path, leaf in zip(paths(params), leaves, strict=True)]
    return jax.tree.unflatten(treedef, replaced)


def as_matrix(kernel: Float[Array, "..."]) -> Float[Array, "fan_in units"]:
    """View a kernel as the paper does: the last axis is the output unit, all others are the fan-in.

    Args:
      kernel: `[..., units]`.

    Returns:
      `[fan_in, units]`.

    Example:
      >>> import jax.numpy as jnp
      >>> as_matrix(jnp.ones((3, 3, 16, 32))).shape
      (144, 32)
    """
    return kernel.reshape(-1, kernel.shape[-1])


def matrix_shape(kernel: Any) -> tuple[int, int]:
    """The shape of the `[fan_in, units]` view.

    Args:
      kernel: an array, or its shape and dtype.

    Returns:
      (fan_in, units).

    Example:
      >>> import jax.numpy as jnp
      >>> matrix_shape(jnp.ones((3, 3, 16, 32)))
      (144, 32)
    """
    return kernel.size // kernel.shape[-1], kernel.shape[-1]


def map_kernels(function: Callable[[str, Array], Array], params: Params, patterns: Patterns = KERNELS) -> Params:
    """Replace every chosen kernel by `function(path, kernel as [fan_in, units])` and leave the rest alone.

    Args:
      function: called once a kernel; gives a matrix of the same shape.
      params: any pytree.
      patterns: which kernels.

    Returns:
      A tree of the same structure.

    Raises:
      UserError: a pattern matches nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> scaled = map_kernels(lambda path, w: w * w.shape[0], {"w": jnp.ones((2, 2, 1)), "b": jnp.ones(2)})
      >>> scaled["w"].ravel().tolist(), scaled["b"].tolist()
      ([4.0, 4.0, 4.0, 4.0], [1.0, 1.0])
    """
    chosen = select_kernels(params, patterns)
    mapped = {path: function(path, as_matrix(kernel)).reshape(kernel.shape) for path, kernel in chosen.items()}
    return replace_kernels(params, mapped)


def kernel_key(key: RandomKey, step: Step, path: str) -> RandomKey:
    """Derive the key of one kernel at one step.

    It depends on the kernel's path and not on its place in the tree, so adding a layer changes no other mask.

    Args:
      key: the run's key.
      step: the step.
      path: the kernel's path.

    Returns:
      A key.

    Example:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> bool((kernel_key(key, 1, "a") == kernel_key(key, 1, "b")).all())
      False
    """
    return jax.random.fold_in(jax.random.fold_in(key, step), zlib.crc32(path.encode()))


def draw_entries(
    draw: Callable[[RandomKey, tuple[int, int]], Array],
    key: RandomKey,
    params: Params,
    granularity: str,
    patterns: Patterns = KERNELS,
) -> dict[str, Array]:
    """Make one number for each weight, or for each unit, of every chosen kernel.

    Args:
      draw: `(key, shape) -> array`, called once a kernel.
      key: the run's key; each kernel gets its own.
      params: any pytree.
      granularity: "weight" asks for `[fan_in, units]`, "unit" for `[1, units]`.
      patterns: which kernels.

    Returns:
      `{path: array}`.

    Raises:
      UserError: a pattern matches nothing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = {"w": jnp.ones((3, 3, 2, 4))}
      >>> [draw_entries(jax.random.normal, jax.random.key(0), params, g)["w"].shape for g in ("weight", "unit")]
      [(18, 4), (1, 4)]
    """
    entries = {}
    for path, kernel in select_kernels(params, patterns).items():
        fan_in, units = matrix_shape(kernel)
        # Not the key of step 0, should the user give the same one to `init` and `apply`.
        own = jax.random.fold_in(kernel_key(key, 0, path), 1)
        entries[path] = draw(own, (fan_in if granularity == "weight" else 1, units))
    return entries
