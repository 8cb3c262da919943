"""Which axes of a leaf are stacked layers, fan-in and units, read off its name and the shapes beside it.

| library     | kernels                            | their units                                                      |
|-------------|------------------------------------|------------------------------------------------------------------|
| Flax, Haiku | `kernel`, `w`, `w_...`             | the axes that the bias has, else the last; the last two of a     |
|             |                                    | `query`, `key` or `value` without bias; the last but one of      |
|             |                                    | Haiku's transposed convolutions                                  |
| Equinox     | `weight`, `weight_ih`, `weight_hh` | the first of a Linear, Conv or cell of `equinox.nn`              |
| others      | `weight`                           | the axis that the bias has                                       |

Never kernels: `bias`, `b`, `offset`, `scale`, what is named after embeddings, positions or tokens, weights of norms and
embeddings of `equinox.nn`, two axes in a module named after a norm, `lora_...`, and all leaves of fewer than two axes.

Axes are stacked (`nn.scan`, `nnx.vmap`, Haiku's `layer_stack`, `eqx.filter_vmap`) where the bias, or the norms
beside a kernel without one, have them too. Four axes without a bias are a convolution where the module is named so or
the window is square, 2 x 2 or odd. What this does not settle is `Unknown`. What neither names nor shapes tell: Flax's
`ConvTranspose(transpose_kernel=True)` without bias, or with as many inputs as outputs, and Haiku's transposed
convolutions under a name of one's own have their units last but one; name them.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

KERNEL_NAME = re.compile(r"kernel|[wW](_\w+|\d+)?")
WEIGHT_NAME = re.compile(r"weights?(_ih|_hh)?")
VECTOR_NAME = re.compile(r"(bias|b|offset|beta|scale|gamma)(_\w+|\d+)?")
TABLE_NAME = re.compile(r"embed|^pos|position|^cls|token|^probe$|codebook", re.IGNORECASE)
TABLE_MODULE = re.compile(r"emb(ed|s?$|_)|position|codebook", re.IGNORECASE)
NORM_MODULE = re.compile(r"norm(_?\d+)?$", re.IGNORECASE)
PROJECTIONS = ("query", "key", "value")
WINDOWS = (1, 2, 3, 5, 7, 9, 11)


class KernelView(NamedTuple):
    """How a kernel is read as matrices `[*stack, fan_in, units]`.

    Attributes:
      shape: of the leaf.
      stacked: axes along which independent kernels lie, each ranked by itself.
      units: axes that together count the output units; all others are the fan-in.
    """

    shape: tuple[int, ...]
    stacked: tuple[int, ...] = ()
    units: tuple[int, ...] = (-1,)

    @property
    def order(self) -> tuple[int, ...]:
        """All axes: stacked, fan-in, units."""
        ends = [tuple(axis % len(self.shape) for axis in axes) for axes in (self.stacked, self.units)]
        inner = tuple(axis for axis in range(len(self.shape)) if axis not in ends[0] + ends[1])
        return ends[0] + inner + ends[1]

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """`(*stack, fan_in, units)`."""
        sizes = [self.shape[axis] for axis in self.order]
        first, last = len(self.stacked), len(sizes) - len(self.units)
        return (*sizes[:first], math.prod(sizes[first:last]), math.prod(sizes[last:]))

    def as_matrix(self, kernel: Shaped[Array, "..."]) -> Shaped[Array, "*stack fan_in units"]:
        """The kernel as matrices.

        Args:
          kernel: of the view's shape.

        Returns:
          `[*stack, fan_in, units]`.

        Example:
          >>> KernelView((3, 3, 16, 32)).as_matrix(jnp.ones((3, 3, 16, 32))).shape
          (144, 32)
          >>> KernelView((7, 10, 20), stacked=(0,), units=(1,)).as_matrix(jnp.ones((7, 10, 20))).shape
          (7, 20, 10)
        """
        if self.order != tuple(range(len(self.shape))):
            kernel = jnp.transpose(kernel, self.order)
        return kernel.reshape(self.matrix_shape)

    def as_kernel(self, matrix: Shaped[Array, "*stack fan_in units"]) -> Shaped[Array, "..."]:
        """The inverse of `as_matrix`.

        Args:
          matrix: `[*stack, fan_in, units]`.

        Returns:
          An array of the view's shape.

        Example:
          >>> view, kernel = KernelView((2, 3, 4), units=(0,)), jnp.arange(24).reshape(2, 3, 4)
          >>> bool((view.as_kernel(view.as_matrix(kernel)) == kernel).all())
          True
        """
        order = self.order
        kernel = matrix.reshape([self.shape[axis] for axis in order])
        return kernel if order == tuple(range(len(order))) else jnp.transpose(kernel, np.argsort(order).tolist())

    def __str__(self) -> str:
        """As "12 x [768 -> 3072]"."""
        *stack, fan_in, units = self.matrix_shape
        inner = f"{fan_in} -> {units}"
        return f"{'x'.join(map(str, stack))} x [{inner}]" if stack else inner


class NoKernel(NamedTuple):
    """A leaf that is never masked, and why."""

    why: str


class Unknown(NamedTuple):
    """A leaf that may be a kernel or not, and what its name and shape leave open."""

    why: str


Reading = KernelView | NoKernel | Unknown


def read_leaf(path: str, leaf: Any, shapes: Mapping[str, tuple[int, ...]], layers: Mapping[str, Any]) -> Reading:
    """Read one leaf's axes off its name, its shape and those of the leaves around it.

    Args:
      path: of the leaf.
      leaf: an array, or its shape and dtype.
      shapes: of all floating-point leaves, by path.
      layers: the layers of `equinox.nn` in the tree, by path.

    Returns:
      Its view, or why there is none.

    Example:
      >>> read_leaf("attention/query/kernel", jnp.ones((32, 4, 8)), {"attention/query/bias": (4, 8)}, {})
      KernelView(shape=(32, 4, 8), stacked=(), units=(-2, -1))
      >>> read_leaf("mixer/decay", jnp.ones((32, 4)), {}, {})
      Unknown(why="'decay' is not a name that Flax, Haiku or Equinox give to kernels")
    """
    module, _, name = path.rpartition("/")
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return NoKernel("not of floating point")
    if leaf.ndim < 2:
        return NoKernel("fewer than two axes")
    if name.startswith("lora_"):
        return NoKernel("one factor of a low-rank pair")
    if module in layers and WEIGHT_NAME.fullmatch(name):
        return _of_equinox(leaf.shape, layers[module])
    if VECTOR_NAME.fullmatch(name):
        return NoKernel("a bias or a scale")
    if TABLE_NAME.search(name) or (WEIGHT_NAME.fullmatch(name) and TABLE_NAME.search(_last(module))):
        return NoKernel("an embedding, position or token")
    if WEIGHT_NAME.fullmatch(name):
        return _of_either_order(leaf.shape, shapes.get(_beside(module, "bias")))
    if KERNEL_NAME.fullmatch(name):
        return _units_last(module, name, leaf.shape, shapes)
    return Unknown(f"{name!r} is not a name that Flax, Haiku or Equinox give to kernels")


def _beside(module: str, name: str) -> str:
    return f"{module}/{name}" if module else name


def _of_equinox(shape: tuple[int, ...], layer: Any) -> Reading:
    """`[*stack, units, fan-in ...]`: how many axes one layer has is known from its type."""
    kind = type(layer).__name__
    spatial = getattr(layer, "num_spatial_dims", 0)
    if not ("Linear" in kind or "Cell" in kind or "Conv" in kind):
        return NoKernel(f"the weight of an equinox.nn.{kind}")
    stacked = len(shape) - 2 - spatial
    return KernelView(shape, tuple(range(stacked)), (stacked,))


def _of_either_order(shape: tuple[int, ...], bias: tuple[int, ...] | None) -> Reading:
    first, last = (bias == (shape[axis],) for axis in (0, -1))
    if first == last:
        return Unknown("a `weight` may have its units first or last")
    return KernelView(shape, units=(0,) if first else (-1,))


def _units_last(module: str, name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> Reading:
    """`[*stack, fan-in ..., *units]`, as Flax and Haiku have it."""
    transposed = name == "w" and re.search(r"conv(\d_d|_nd)_transpose", _last(module))  # Haiku's: units, then fan-in
    given = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
    bias = next((shapes[path] for path in (_beside(module, "bias"), _beside(module, "b")) if path in shapes), None)
    if bias is None and len(shape) == 2:
        if NORM_MODULE.search(_last(module)):
            return NoKernel("the scale of a norm")
        if TABLE_MODULE.search(_last(module)):
            return Unknown(f"the module {_last(module)!r} is named as an embedding is, whose table is not a kernel")
    depth = _depth_of_neighbours(module, given, shapes)
    fits = _without_bias(module, given, shapes, depth) if bias is None else _fitting(given, bias)
    if len(fits) > 1:
        fits = [fit for fit in fits if fit[0] == depth]
    if len(fits) != 1:
        return Unknown(f"its axes {list(shape)} may be stacked layers, fan-in or units")
    ((stacked, units),) = fits
    return KernelView(shape, tuple(range(stacked)), (-2,) if transposed else tuple(range(-units, 0)))


def _fitting(shape: tuple[int, ...], bias: tuple[int, ...]) -> list[tuple[int, int]]:
    """Every number of stacked axes and of units' axes that together make the bias, with some fan-in between."""
    rank = len(bias)
    return [
        (rank - units, units)
        for units in range(1, rank + 1)
        if rank < len(shape) and bias == shape[: rank - units] + shape[-units:]
    ]


def _without_bias(
    module: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]], depth: int | None
) -> list[tuple[int, int]]:
    """The same from the name of the module and the stacked axes around it; empty where they do not tell."""
    name = _last(module)
    convolution = "conv" in name.lower()
    if len(shape) == 2:
        return [(0, 1)]
    if depth is None:
        sure = len(shape) == 4 and name not in (*PROJECTIONS, "out") and (convolution or _is_window(shape[:2]))
        return [(0, 1)] if sure or (convolution and len(shape) == 3) else []
    inner = len(shape) - depth
    if name in PROJECTIONS and inner == 3:
        return [(depth, 2)]
    parent = module.rpartition("/")[0]
    attention = name == "out" and any(path.startswith(_beside(parent, "query/")) for path in shapes)
    # With three axes or five a convolution looks like layers that somebody stacked.
    plain = inner == 2 or (inner == 4 and _is_window(shape[depth : depth + 2]))
    return [(depth, 1)] if plain or convolution or attention else []


def _is_window(sizes: tuple[int, ...]) -> bool:
    """Whether two axes look like those of a convolution; layers and experts, or heads, are seldom as many."""
    return sizes[0] == sizes[1] and sizes[0] in WINDOWS


def _depth_of_neighbours(module: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """How many stacked axes the biases and scales of other modules have, in the nearest enclosing one that has any."""
    others = {path: other for path, other in shapes.items() if _is_vector(path) and not path.startswith(f"{module}/")}
    while module:
        module = module.rpartition("/")[0]
        inside = [other for path, other in others.items() if path.startswith(_beside(module, ""))]
        if inside:
            depth = min(map(len, inside)) - 1
            # Fewer features than layers: the layers are stacked along another axis, as T5X and MaxText do.
            turned = depth == 1 and any(len(other) == 2 and other[1] < other[0] for other in inside)
            return depth if not turned and all(other[:depth] == shape[:depth] for other in inside) else None
    return None


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _is_vector(path: str) -> bool:
    module, _, name = path.rpartition("/")
    return bool(VECTOR_NAME.fullmatch(name)) and _last(module) not in PROJECTIONS


def is_equinox_layer(node: Any) -> bool:
    """Whether a node is a layer of `equinox.nn` with weights of its own; Equinox itself is not imported.

    Args:
      node: any node of a pytree.

    Returns:
      Whether it is.

    Example:
      >>> is_equinox_layer({"weight": 1.0})
      False
    """
    own = any(hasattr(node, name) for name in ("weight", "weight_ih"))
    return own and type(node).__module__.startswith("equinox.nn")
