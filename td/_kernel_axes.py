"""Read which axes of a leaf are stacked layers, fan-in and units off its name and the shapes next to it.

| library     | kernels                            | their units                                                      |
|-------------|------------------------------------|------------------------------------------------------------------|
| Flax, Haiku | `kernel`, `w`, `w_...`             | the axes that the bias has, else the last; the last two of a     |
|             |                                    | `query`, `key` or `value` without bias; the last but one of      |
|             |                                    | Haiku's transposed convolutions                                  |
| Equinox     | `weight`, `weight_ih`, `weight_hh` | the first of a Linear, Conv or cell of `equinox.nn`              |
| others      | `weight`                           | the axis that the bias has                                       |

Never kernels: `bias`, `b`, `offset`, `scale`, what is named after embeddings, positions or tokens (`W_E`, `w_pos`),
weights of norms and embeddings of `equinox.nn`, two axes in a module named after a norm, `lora_...`, and all leaves of
fewer than two axes.

Axes are stacked (`nn.scan`, `nnx.vmap`, Haiku's `layer_stack`, `eqx.filter_vmap`) where the bias, or the norms
next to a kernel without one, have them too. Four axes without a bias are a convolution where the module is named so and
the window is square or 1 wide, or where it is odd and square in a module that is not named after attention or experts.
Two axes without a bias, or as many inputs as units, are `Unknown` where another kernel's bias shows that this tree has
its units first. What names and shapes do not settle is `Unknown`. What they do not even show: Flax's
`ConvTranspose(transpose_kernel=True)` without bias, or with as many inputs as outputs, and Haiku's transposed
convolutions under other names have their units last but one; name them.
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
TABLE_NAME = re.compile(
    r"embed|^pos|position|^cls|token|^probe$|codebook|(^|_)(emb|pos)(s?$|_)|^[wW](?-i:_E)$", re.IGNORECASE
)
TABLE_MODULE = re.compile(r"emb(ed|s?$|_)|position|codebook", re.IGNORECASE)
NORM_MODULE = re.compile(r"norm(_?\d+)?$", re.IGNORECASE)
ATTENTION_OR_EXPERTS = re.compile(r"einsum|attn|attention|qkv|(^|[/_])kv|expert|moe", re.IGNORECASE)
PROJECTIONS = ("query", "key", "value")
LARGEST_WINDOW = 11


class Kernel(NamedTuple):
    """A kernel, read as matrices `[*stack, fan_in, units]`.

    Attributes:
      shape: of the leaf.
      stacked: axes along which independent kernels lie, each ranked separately.
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
        """The kernel as matrices."""
        if self.order != tuple(range(len(self.shape))):
            kernel = jnp.transpose(kernel, self.order)
        return kernel.reshape(self.matrix_shape)

    def as_kernel(self, matrix: Shaped[Array, "*stack fan_in units"]) -> Shaped[Array, "..."]:
        """The inverse of `as_matrix`."""
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
    """A leaf that may be a kernel or not, what its name and shape leave open, and the axes that its bias suggests."""

    why: str
    stacked: tuple[int, ...] = ()
    units: tuple[int, ...] = (-1,)


Reading = Kernel | NoKernel | Unknown


def read_leaf(path: str, leaf: Any, shapes: Mapping[str, tuple[int, ...]], layers: Mapping[str, Any]) -> Reading:
    """Read one leaf's axes off its name, the shapes of all leaves and the layers of `equinox.nn`, by path."""
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
    return Kernel(shape, tuple(range(stacked)), (stacked,))


def _of_either_order(shape: tuple[int, ...], bias: tuple[int, ...] | None) -> Reading:
    first, last = (bias == (shape[axis],) for axis in (0, -1))
    if first == last:
        axes = ((), (0,)) if first or bias is None else _suggested(shape, bias)
        return Unknown("a `weight` may have its units first or last", *axes)
    return Kernel(shape, units=(0,) if first else (-1,))


def _units_last(module: str, name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> Reading:
    """`[*stack, fan-in ..., *units]`, as Flax and Haiku have it."""
    transposed = name == "w" and re.search(r"conv(\d_d|_nd)_transpose", _last(module))  # Haiku's: units, then fan-in
    given = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
    bias = _bias_of(module, name, shapes)
    if bias is None and len(shape) == 2:
        if NORM_MODULE.search(_last(module)):
            return NoKernel("the scale of a norm")
        if TABLE_MODULE.search(_last(module)):
            return Unknown(f"the module {_last(module)!r} is named as an embedding is, whose table is not a kernel")
    depth = _depth(given, _neighbours(module, shapes))
    fits = _without_bias(module, given, shapes, depth) if bias is None else _fitting(given, bias)
    if len(fits) > 1:  # neighbours that are not stacked may lie outside of what is
        fits = [fit for fit in fits if depth and fit[0] == depth]
    if len(fits) != 1:
        return Unknown(f"its axes {list(shape)} may be stacked layers, fan-in or units", *_suggested(shape, bias))
    ((stacked, units),) = fits
    if len(shape) - stacked == 2 and bias in (None, shape[:-1]) and _units_first_elsewhere(shapes):
        return Unknown(
            "other kernels here have their units first, as their biases show", tuple(range(stacked)), (stacked,)
        )
    return Kernel(shape, tuple(range(stacked)), (-2,) if transposed else tuple(range(-units, 0)))


def _bias_of(module: str, name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of a kernel's bias; that of `w1` may be `b1`."""
    names = (f"b{name[1:]}", "bias", "b")
    return next((shapes[path] for path in (_beside(module, one) for one in names) if path in shapes), None)


def _units_first_elsewhere(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Look for a kernel whose bias has the size of the axis before the last, and of that alone."""
    for path, shape in shapes.items():
        module, _, other = path.rpartition("/")
        if (
            KERNEL_NAME.fullmatch(other)
            and shape[-2:-1] != shape[-1:]
            and _bias_of(module, other, shapes) == shape[:-1]
        ):
            return True
    return False


def _suggested(shape: tuple[int, ...], bias: tuple[int, ...] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stacked axes and units as the bias has them, or the last axis."""
    if bias and (fits := _fitting(shape, bias)):
        stacked, units = fits[0]
        return tuple(range(stacked)), tuple(range(-units, 0))
    stacked = len(bias or ()) - 1
    if bias and bias[:-1] == shape[:stacked] and bias[-1] in shape[stacked:]:
        return tuple(range(stacked)), (shape.index(bias[-1], stacked),)
    return (), (-1,)


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
    """Infer numbers of stacked and unit axes from the module's name and the axes around it; empty if unknown."""
    name, stacked = _last(module), depth or 0
    window = shape[stacked:-2]
    if len(shape) == 2:
        return [(0, 1)]
    if len(shape) < stacked + 2:
        return []
    if "conv" in name.lower():
        # More than one axis may be stacked layers, unless norms next to them are stacked or sizes exclude it.
        alike = 1 in window or len(set(window)) == 1
        sure = len(window) == 1 or stacked > 0 or (alike and (len(window) == 2 or depth == 0))
        return [(stacked, 1)] if sure else []
    if not window and depth is not None:
        return [(depth, 1)]
    if len(window) == 1 and depth is not None and name in (*PROJECTIONS, "out"):
        out = name == "out"  # [heads, size of a head, width]; the others have the width first
        sibling = shapes.get(_beside(module.rpartition("/")[0], "query/kernel" if out else "out/kernel"), ())
        heads = (shape[depth:-1], sibling[depth + 1 :]) if out else (shape[depth + 1 :], sibling[depth:-1])
        return [(depth, 1 if out else 2)] if heads[0] == heads[1] else []
    odd = len(window) == 2 and window[0] == window[1] and window[0] % 2 == 1 and window[0] <= LARGEST_WINDOW
    attention = name in (*PROJECTIONS, "out") or ATTENTION_OR_EXPERTS.search(module)
    return [(stacked, 1)] if odd and not attention else []


def _neighbours(module: str, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Shapes of the biases and scales of other modules, in the nearest enclosing one that has any."""
    others = {path: shape for path, shape in shapes.items() if _is_vector(path) and not path.startswith(f"{module}/")}
    while module:
        module = module.rpartition("/")[0]
        if inside := [shape for path, shape in others.items() if path.startswith(_beside(module, ""))]:
            return inside
    return []


def _depth(shape: tuple[int, ...], neighbours: list[tuple[int, ...]]) -> int | None:
    """Count the stacked axes of the neighbours; None where this kernel does not share them."""
    depth = min(map(len, neighbours), default=0) - 1
    # Fewer features than layers: the layers are stacked along another axis, as T5X and MaxText do.
    turned = depth == 1 and any(len(other) == 2 and other[1] < other[0] for other in neighbours)
    return depth if neighbours and not turned and all(other[:depth] == shape[:depth] for other in neighbours) else None


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _is_vector(path: str) -> bool:
    module, _, name = path.rpartition("/")
    return bool(VECTOR_NAME.fullmatch(name)) and _last(module) not in PROJECTIONS


def is_equinox_layer(node: Any) -> bool:
    """Recognise a layer of `equinox.nn` with weights of its own; Equinox itself is not imported."""
    own = any(hasattr(node, name) for name in ("weight", "weight_ih"))
    return own and type(node).__module__.startswith("equinox.nn")
