"""The grammar of the fuzzer: `(drawing, shape of a value) -> function of params and value`, None where it does not fit.

Operations on two values return the function and the number of the second.
"""

import jax
import jax.numpy as jnp
import numpy as np
from fuzz_axes import along, written  # noqa: F401
from jax import lax

SPECS = {2: ("NHC", "HIO", "NHC"), 3: ("NHWC", "HWIO", "NHWC")}


@jax.custom_jvp
def _rounded(x):
    return jnp.round(4 * x) / 4


_rounded.defjvps(lambda tangent, output, x: jnp.where(jnp.abs(x) < 1, tangent, 0.0))


@jax.custom_vjp
def _limited(x, most):
    return jnp.minimum(jnp.maximum(x, -most), most)


_limited.defvjp(
    lambda x, most: (_limited(x, most), x), lambda x, g: (g * (1 + jnp.exp(-(x**2))), jnp.sum(jnp.where(x > 1, g, 0)))
)

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu6": lambda x: jax.nn.relu6(4 * x),
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "maximum": lambda x: jnp.maximum(x, 0.1),
    "clip": lambda x: jnp.clip(x, -1, 0.5),
    "abs": jnp.abs,
    "square": lambda x: x * x,
    "rounded": _rounded,
    "limited": lambda x: _limited(x, 0.7),
    "mapped": jax.vmap(_rounded),
    "chosen": lambda x: jnp.where(x > 0.2, x, 0.2),
    "hard": jax.nn.hard_swish,
    "leaky": lambda x: jax.nn.leaky_relu(jax.checkpoint(jnp.sin)(x)),
}
WIDTHS = (2, 3, 4, 6, 8, 16, 33, 130)


def dense(d, shape):
    w, b = d.kernel(shape[-1], d.choice(*WIDTHS), single=True), d.vector(1)
    return lambda p, v: v @ p[w] + p[b]


def biased(d, shape):
    units = d.choice(*WIDTHS)
    w, b, act = d.kernel(shape[-1], units, single=True), d.vector(units), ACTIVATIONS[d.choice(*ACTIVATIONS)]
    return lambda p, v: act(v @ p[w] + p[b])


def activation(d, shape):
    act = ACTIVATIONS[d.choice(*ACTIVATIONS)]
    return lambda p, v: act(v)


def low_rank(d, shape):
    rank, units = d.choice(1, 2, 5), d.choice(4, 12)
    a, b, w = d.kernel(shape[-1], rank), d.kernel(rank, units), d.kernel(shape[-1], units)
    return d.choice(
        lambda p, v: v @ (p[a] @ p[b]), lambda p, v: v @ p[a] @ p[b], lambda p, v: v @ (p[w] + 0.5 * p[a] @ p[b])
    )


def tied(d, shape):
    w = d.kernel(shape[-1], d.choice(4, 9))
    return lambda p, v: jnp.tanh(v @ p[w]) @ p[w].T


def convolution(d, shape):
    if len(shape) not in SPECS:
        return None
    space, groups = len(shape) - 1, d.choice(1, 1, 2, shape[-1])
    if shape[-1] % groups:
        return None
    side, units = d.choice(1, 2, 3, 3), groups * d.choice(1, 2, 5)
    w, b = d.kernel(*(side,) * space, shape[-1] // groups, units, single=groups == 1), d.vector(units)
    strides, dilation = (d.choice(1, 1, 2),) * space, (d.choice(1, 1, 2),) * space
    padding = d.choice("SAME", "SAME", "VALID", [(2, 1)] * space)
    settings = {"dimension_numbers": SPECS[len(shape)], "feature_group_count": groups, "rhs_dilation": dilation}
    return lambda p, v: lax.conv_general_dilated(v, p[w], strides, padding, **settings) + p[b]


def transposed_convolution(d, shape):
    if len(shape) not in SPECS:
        return None
    w, strides = d.kernel(*(3,) * (len(shape) - 1), shape[-1], d.choice(2, 6)), (d.choice(1, 2),) * (len(shape) - 1)
    padding = d.choice("SAME", "VALID")
    return lambda p, v: lax.conv_transpose(v, p[w], strides, padding, dimension_numbers=SPECS[len(shape)])


def norm(d, shape):
    scale, bias, mean = d.vector(shape[-1]), d.vector(shape[-1]), d.vector(shape[-1])
    axes = {"layer": -1, "instance": tuple(range(1, len(shape))), "batch": tuple(range(len(shape)))}
    kind = d.choice("running", "running", "rms", "group", *axes)

    def normalised(p, v):
        if kind == "running":
            return (v - p[mean]) * lax.rsqrt(p[mean] ** 2 + 0.1)
        if kind == "rms":
            return v * lax.rsqrt((v * v).mean(-1, keepdims=True) + 0.1)
        if kind == "group":
            grouped = v.reshape(*v.shape[:-1], 2 - v.shape[-1] % 2, -1)
            return ((grouped - grouped.mean(-1, keepdims=True)) / (1 + grouped.std(-1, keepdims=True))).reshape(v.shape)
        axis = axes[kind] or -1
        return (v - v.mean(axis, keepdims=True)) * lax.rsqrt(v.var(axis, keepdims=True) + 0.1)

    return lambda p, v: normalised(p, v) * p[scale] + p[bias]


def arithmetic(d, shape):
    function = d.choice(jnp.add, jnp.add, jnp.subtract, jnp.multiply, jnp.maximum)
    return lambda p, v, o: function(v, o), d.other(lambda other: other == shape)


def join(d, shape):
    axis = d.choice(*range(len(shape)))
    fits = lambda s: s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :] and len(s) == len(shape)  # noqa: E731
    return lambda p, v, o: jnp.concatenate([v, o], axis + 1), d.other(fits)


def piece(d, shape):
    axis = d.choice(*range(len(shape)))
    size, step = shape[axis], d.choice(1, 1, 2)
    start = int(d.rng.integers(size))
    order = d.rng.permutation(size)
    return d.choice(
        lambda p, v: lax.slice_in_dim(v, start, size, step, axis + 1),
        lambda p, v: jnp.split(v, [start], axis + 1)[1],
        lambda p, v: jnp.take(v, order, axis + 1),
        lambda p, v: jnp.roll(jnp.flip(v, axis + 1), 1, axis + 1),
        lambda p, v: jnp.stack([v, -v], -1).reshape(*v.shape[:-1], -1),
        lambda p, v: jnp.tile(v, (1, *(2 if a == axis else 1 for a in range(len(shape))))),
        lambda p, v: jnp.pad(v, [(0, 0), *((1, 2) if a == axis else (0, 0) for a in range(len(shape)))]),
    )


def reshape(d, shape):
    if len(shape) == 1 or shape[-1] % 2 == 0:
        halves = 1 + (shape[-1] % 2 == 0)
        return lambda p, v: v.reshape(*v.shape[:-1], halves, -1)
    kind = d.choice("flat", "merge", "turn", "channels first")
    return {
        "flat": lambda p, v: v.reshape(len(v), -1),
        "merge": lambda p, v: v.reshape(*v.shape[:-2], -1),
        "turn": lambda p, v: v.swapaxes(1, 2),
        "channels first": lambda p, v: jnp.moveaxis(v, -1, 1),
    }[kind]


def shuffle(d, shape):
    """Depth to space, or channels in another order by a reshape."""
    if len(shape) == 3 and shape[-1] % 4 == 0:
        turned = lambda v: v.reshape(*v.shape[:3], 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)  # noqa: E731
        return lambda p, v: turned(v).reshape(len(v), 2 * v.shape[1], 2 * v.shape[2], -1)
    if shape[-1] % 3:
        return None
    return lambda p, v: v.reshape(*v.shape[:-1], 3, -1).swapaxes(-1, -2).reshape(v.shape)


def pooling(d, shape):
    if len(shape) not in SPECS:
        return None
    side, stride, padding = d.choice(2, 3), d.choice(1, 2), d.choice("SAME", "VALID")
    window, strides = ((1, *(n,) * (len(shape) - 1), 1) for n in (side, stride))
    kinds = {"max": (-jnp.inf, lax.max), "sum": (0.0, lax.add), "min": (jnp.inf, lax.min)}
    first, function = kinds[d.choice(*kinds)]
    return lambda p, v: lax.reduce_window(v, first, function, window, strides, padding)


def reduction(d, shape):
    axis = d.choice(*range(1, len(shape) + 1))
    function = d.choice(jnp.mean, jnp.sum, jnp.max, jnp.min, jax.nn.logsumexp)
    return (lambda p, v: function(v, axis)) if len(shape) > 1 else None


def centred(d, shape):
    axis = d.choice(*range(1, len(shape) + 1))
    return d.choice(lambda p, v: v - v.mean(axis, keepdims=True), lambda p, v: jax.nn.softmax(v, axis))


def without_rule(d, shape):
    return lambda p, v: lax.polygamma(1.0, 1 + jnp.abs(v))


def gating(d, shape):
    if shape[-1] % 2 == 0:
        return lambda p, v: jax.nn.sigmoid(v[..., ::2]) * v[..., 1::2]
    a, b = d.kernel(shape[-1], 3), d.kernel(3, shape[-1])
    pooled = lambda v: v.mean(tuple(range(1, v.ndim - 1)), keepdims=True)  # noqa: E731
    return lambda p, v: v * jax.nn.sigmoid(jax.nn.relu(pooled(v) @ p[a]) @ p[b])


def attention(d, shape):
    if len(shape) != 2:
        return None
    heads, width, masked = d.choice(1, 2), d.choice(2, 3), d.choice("causal", "whole", "own")
    kernels, o = [d.kernel(shape[-1], heads * width) for _ in range(3)], d.kernel(heads * width, shape[-1])
    fused = d.kernel(shape[-1], 3 * heads * width)
    made = d.choice(
        lambda p, x: [(x @ p[w]).reshape(*x.shape[:2], heads, width) for w in kernels],
        lambda p, x: [part.reshape(*x.shape[:2], heads, width) for part in jnp.split(x @ p[fused], 3, -1)],
        lambda p, x: jnp.split((x @ p[fused]).reshape(*x.shape[:2], heads, 3 * width), 3, -1),
    )

    def apply(p, x):
        q, k, v = made(p, x)
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k)
        own = jnp.eye(x.shape[1], dtype=bool) | (x[:, None, :, 0] > 0)
        mask = {"causal": jnp.tri(x.shape[1], dtype=bool), "whole": True, "own": own[:, None]}[masked]
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), -1)
        return x + jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(*x.shape[:2], -1) @ p[o]

    return apply


def mask(d, shape):
    """Numbers that are not finite, and what takes them away again."""
    w, g = d.kernel(shape[-1], 6), d.kernel(shape[-1], 6)
    where = d.choice(lambda v: v[..., :1] > 0, lambda v: jnp.arange(6) % 2 == 0)
    return d.choice(
        lambda p, v: jnp.maximum(jnp.where(where(v), v @ p[w], -jnp.inf), v @ p[g]),
        lambda p, v: jax.nn.relu(jnp.where(where(v), v @ p[w], -jnp.inf)),
        lambda p, v: jnp.nan_to_num(jnp.where(where(v), v @ p[w], jnp.nan), nan=0.25),
        lambda p, v: jnp.exp(jnp.where(where(v), -jnp.abs(v @ p[w]), -jnp.inf)),
    )


def lookup(d, shape):
    table, first = d.kernel(7, d.choice(3, 8)), int(d.rng.integers(shape[-1]))
    return lambda p, v: p[table][(jnp.abs(v[..., first]) * 5).astype(int) % 7]


def positions(d, shape):
    table = d.kernel(shape[0] + 3 * (len(shape) - 1), shape[-1])
    return (lambda p, v: v + p[table][: v.shape[1]]) if len(shape) == 2 else None


def experts(d, shape):
    a, b = d.kernel(3, shape[-1], 4), d.kernel(3, 4, shape[-1])
    return lambda p, v: jnp.einsum("e...h,eho->...o", jax.nn.relu(jnp.einsum("...i,eih->e...h", v, p[a])), p[b])


def pairs(d, shape):
    """The product of two values."""
    if len(shape) != 2:
        return None
    fits = lambda s: len(s) == 2 and s[-1] == shape[-1]  # noqa: E731
    return lambda p, v, o: jnp.einsum("ntc,nsc->nts", v, o), d.other(fits)


def constant(d, shape):
    """A branch that is dead but for its bias."""
    b = d.vector(shape[-1])
    return lambda p, v: 0 * v + p[b]


def shifted(d, shape):
    """By numbers that are no parameters."""
    offset = np.round(d.rng.normal(size=shape[-1]), 1)
    return lambda p, v: v * (offset > 0) + offset
