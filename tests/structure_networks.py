"""Tiny networks of every kind, as functions of plain arrays: each gives `(apply, params, inputs)`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

IMAGES = ("NHWC", "HWIO", "NHWC")


def drawn(**shapes):
    """Leaves of random numbers; a shape in a list or dict stays there."""
    rng = np.random.default_rng(0)
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=is_shape)


def normed(x, scale=None, offset=None, axes=-1):
    """Layer normalisation."""
    y = (x - x.mean(axes, keepdims=True)) * lax.rsqrt(x.var(axes, keepdims=True) + 1e-5)
    y = y if scale is None else y * scale
    return y if offset is None else y + offset


def rms(x, scale):
    """Root-mean-square normalisation."""
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale


def conv(x, kernel, stride=1, padding="SAME", **more):
    """A convolution of images."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=IMAGES, **more)


def residual():
    """A residual MLP with layer normalisation."""
    params = drawn(stem=(5, 8), scale=(8,), offset=(8,), up=(8, 12), bias=(12,), down=(12, 8), head=(8, 3))

    def apply(p, x):
        x = x @ p["stem"]
        x = x + jax.nn.relu(normed(x, p["scale"], p["offset"]) @ p["up"] + p["bias"]) @ p["down"]
        return normed(x) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def gated():
    """A gated MLP."""
    params = drawn(stem=(5, 8), gate=(8, 12), up=(8, 12), down=(12, 6), head=(6, 3))

    def apply(p, x):
        x = x @ p["stem"]
        return ((jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"]) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def transposed():
    """Kernels `[out, in]` in a list."""
    params = drawn(layers=[(8, 5), (12, 8), (3, 12)], biases=[(8,), (12,), (3,)])

    def apply(p, x):
        for kernel, bias in zip(p["layers"][:-1], p["biases"][:-1], strict=True):
            x = jax.nn.relu(x @ kernel.T + bias)
        return x @ p["layers"][-1].T + p["biases"][-1]

    return apply, params, [jnp.ones((2, 5))]


def resnet():
    """A pre-activation ResNet with batch normalisation by running statistics, pooled and flattened."""
    params = drawn(stem=(3, 3, 3, 8), a=(3, 3, 8, 8), b=(3, 3, 8, 8), wide=(3, 3, 8, 16), shortcut=(1, 1, 8, 16))
    params |= drawn(head=(2 * 2 * 16, 4), norms=[{k: (8,) for k in ("mean", "var", "scale", "bias")}] * 3)

    def normalised(p, x):
        return jax.nn.relu((x - p["mean"]) * lax.rsqrt(p["var"] ** 2 + 1e-5) * p["scale"] + p["bias"])

    def apply(p, x):
        x = conv(x, p["stem"])
        x = x + conv(normalised(p["norms"][1], conv(normalised(p["norms"][0], x), p["a"])), p["b"])
        y = normalised(p["norms"][2], x)
        x = jax.nn.relu(conv(y, p["wide"], 2) + conv(y, p["shortcut"], 2))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return x.reshape(x.shape[0], -1) @ p["head"]

    return apply, params, [jnp.ones((2, 8, 8, 3))]


def depthwise():
    """A pointwise, a depthwise and a pointwise convolution, then the mean over the image."""
    params = drawn(stem=(1, 1, 3, 8), depth=(3, 3, 1, 8), bias=(8,), point=(1, 1, 8, 6), head=(6, 4))

    def apply(p, x):
        x = conv(conv(x, p["stem"]), p["depth"], feature_group_count=8) + p["bias"]
        return jax.nn.relu(conv(jax.nn.relu(x), p["point"])).mean((1, 2)) @ p["head"]

    return apply, params, [jnp.ones((2, 4, 4, 3))]


def multiplied():
    """A depthwise convolution with two outputs a channel."""
    params = drawn(stem=(1, 1, 3, 6), depth=(3, 3, 1, 12), point=(1, 1, 12, 6), head=(6, 4))

    def apply(p, x):
        x = jax.nn.relu(conv(conv(x, p["stem"]), p["depth"], feature_group_count=6))
        return jax.nn.relu(conv(x, p["point"])).mean((1, 2)) @ p["head"]

    return apply, params, [jnp.ones((2, 4, 4, 3))]


def positions():
    """Positions that are a sum of rows and columns, then root-mean-square normalisation."""
    params = drawn(stem=(3, 6), wide=(6, 8), rows=(4, 1, 8), columns=(4, 8), scale=(8,), up=(8, 12), head=(12, 4))

    def apply(p, x):
        x = jax.nn.relu(x @ p["stem"]) @ p["wide"] + (p["rows"] + p["columns"])
        return jax.nn.relu(rms(x, p["scale"]) @ p["up"]).mean((1, 2)) @ p["head"]

    return apply, params, [jnp.ones((2, 4, 4, 3))]


def grouped():
    """A grouped convolution of four groups."""
    params = drawn(stem=(1, 1, 3, 16), group=(3, 3, 4, 8), point=(1, 1, 8, 6), head=(6, 4))

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"]))
        x = jax.nn.relu(conv(x, p["group"], feature_group_count=4))
        return jax.nn.relu(conv(x, p["point"])).mean((1, 2)) @ p["head"]

    return apply, params, [jnp.ones((2, 4, 4, 3))]


def unet():
    """Skips by concatenation, squeeze-and-excite, group normalisation and a transposed convolution."""
    params = drawn(stem=(3, 3, 3, 8), down=(3, 3, 8, 12), squeeze=(12, 4), excite=(4, 12), up=(2, 2, 12, 6))
    params |= drawn(mix=(3, 3, 14, 8), scale=(8,), offset=(8,), head=(1, 1, 8, 2))

    def apply(p, x):
        one = jax.nn.relu(conv(x, p["stem"]))
        two = jax.nn.relu(conv(one, p["down"], 2))
        two = two * jax.nn.sigmoid(jax.nn.relu(two.mean((1, 2)) @ p["squeeze"]) @ p["excite"])[:, None, None]
        up = lax.conv_transpose(two, p["up"], (2, 2), "SAME", dimension_numbers=IMAGES)
        x = conv(jnp.concatenate([up, one], -1), p["mix"])
        split = normed(x.reshape(*x.shape[:-1], 4, 2), axes=(1, 2, 4))
        x = split.reshape(x.shape) * p["scale"] + p["offset"]
        return conv(jax.nn.relu(x), p["head"])

    return apply, params, [jnp.ones((2, 4, 4, 3))]


def attend(query, key, value, bias=0.0):
    """Attention of `[batch, length, heads, size]`."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) / 2 + bias
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), value)


def vit():
    """Patches, a class token, positions and attention with one kernel for query, key and value."""
    params = drawn(patch=(2, 2, 3, 8), token=(1, 1, 8), positions=(1, 5, 8), qkv=(8, 24), qkv_bias=(24,), out=(8, 8))
    params |= drawn(up=(8, 12), down=(12, 8), head=(8, 4), norms=[{"scale": (8,), "offset": (8,)}] * 3)

    def apply(p, x):
        x = conv(x, p["patch"], 2, "VALID").reshape(2, 4, 8)
        x = jnp.concatenate([jnp.broadcast_to(p["token"], (2, 1, 8)), x], 1) + p["positions"]
        qkv = (normed(x, **p["norms"][0]) @ p["qkv"] + p["qkv_bias"]).reshape(2, 5, 3, 2, 4)
        x = x + attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(2, 5, 8) @ p["out"]
        x = x + jax.nn.gelu(normed(x, **p["norms"][1]) @ p["up"]) @ p["down"]
        return normed(x, **p["norms"][2]).mean(1) @ p["head"]

    return apply, params, [jnp.ones((2, 4, 4, 3))]


def rotated(x):
    """Rotary positions by split and concatenation."""
    angles = jnp.arange(x.shape[1])[:, None, None] / 10.0 ** jnp.arange(x.shape[-1] // 2)
    one, other = jnp.split(x, 2, -1)
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate([one * cos - other * sin, other * cos + one * sin], -1)


def decoder(key_heads=2):
    """Grouped-query attention with rotary positions, a SwiGLU and logits tied to the embedding."""
    params = drawn(table=(11, 8), q=(8, 4, 4), k=(8, key_heads, 4), v=(8, key_heads, 4), o=(4, 4, 8), norms=[(8,)] * 3)
    params |= drawn(gate=(8, 12), up=(8, 12), down=(12, 8))

    def apply(p, tokens):
        x = jnp.take(p["table"], tokens, axis=0)
        y = rms(x, p["norms"][0])
        q, k, v = (jnp.einsum("btd,dhk->bthk", y, p[name]) for name in "qkv")
        k, v = jnp.repeat(rotated(k), 4 // key_heads, 2), jnp.repeat(v, 4 // key_heads, 2)
        x = x + jnp.einsum("bqhd,hdm->bqm", attend(rotated(q), k, v), p["o"])
        y = rms(x, p["norms"][1])
        x = x + (jax.nn.silu(y @ p["gate"]) * (y @ p["up"])) @ p["down"]
        return rms(x, p["norms"][2]) @ p["table"].T

    return apply, params, [jnp.zeros((2, 6), int)]


def multi_query():
    """One head of keys and values for all queries."""
    return decoder(key_heads=1)


def biased_attention():
    """A bias by relative position from an embedding, a number a head, as in T5."""
    params = drawn(stem=(5, 8), q=(8, 8), k=(8, 8), v=(8, 8), o=(8, 8), relative=(7, 2), head=(8, 3))

    def apply(p, x):
        x = x @ p["stem"]
        distance = jnp.arange(4)[:, None] - jnp.arange(4)[None] + 3
        bias = p["relative"][distance].transpose(2, 0, 1)[None]
        q, k, v = ((x @ p[name]).reshape(2, 4, 2, 4) for name in "qkv")
        return (x + attend(q, k, v, bias).reshape(2, 4, 8) @ p["o"]) @ p["head"]

    return apply, params, [jnp.ones((2, 4, 5))]


def experts():
    """The two best of four experts by a router."""
    params = drawn(stem=(5, 8), router=(8, 4), up=(4, 8, 6), down=(4, 6, 8), head=(8, 3))

    def apply(p, x):
        x = x @ p["stem"]
        best, which = lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
        weight = (jax.nn.one_hot(which, 4) * best[..., None]).sum(1)
        hidden = jax.nn.relu(jnp.einsum("bd,edf->bef", x, p["up"]))
        return (x + jnp.einsum("bef,efd,be->bd", hidden, p["down"], weight)) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def stacked_experts():
    """Three experts of stacked kernels, all of them weighted."""
    params = drawn(stem=(5, 8), router=(8, 3), up=(3, 8, 6), down=(3, 6, 8), bias=(3, 1, 8), head=(8, 3))

    def apply(p, x):
        x = x @ p["stem"]
        each = jnp.broadcast_to(x, (3, *x.shape))
        hidden = jax.nn.relu(jnp.einsum("ebd,edf->ebf", each, p["up"]))
        out = jnp.einsum("ebf,efd->ebd", hidden, p["down"]) + p["bias"]
        return (x + jnp.einsum("ebd,be->bd", out, jax.nn.softmax(x @ p["router"]))) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def grouped_queries():
    """Two heads of queries for each head of keys, as an axis of its own."""
    params = drawn(stem=(5, 8), q=(8, 2, 2, 4), k=(8, 2, 4), v=(8, 2, 4), o=(2, 2, 4, 8), head=(8, 3))

    def apply(p, x):
        x = x @ p["stem"]
        q = jnp.einsum("btd,dkgh->btkgh", x, p["q"])
        k, v = (jnp.einsum("btd,dkh->btkh", x, p[name]) for name in "kv")
        weights = jax.nn.softmax(jnp.einsum("btkgh,bskh->btkgs", q, k))
        return (x + jnp.einsum("btkgh,kghd->btd", jnp.einsum("btkgs,bskh->btkgh", weights, v), p["o"])) @ p["head"]

    return apply, params, [jnp.ones((2, 3, 5))]


def mixer():
    """Units along tokens and units along channels in one stream."""
    params = drawn(stem=(5, 8), token_up=(6, 10), token_down=(10, 6), up=(8, 12), down=(12, 8), head=(8, 3))

    def apply(p, x):
        x = x @ p["stem"]
        x = x + (jax.nn.gelu(x.swapaxes(1, 2) @ p["token_up"]) @ p["token_down"]).swapaxes(1, 2)
        x = x + jax.nn.gelu(x @ p["up"]) @ p["down"]
        return x.mean(1) @ p["head"]

    return apply, params, [jnp.ones((2, 6, 5))]


def masked_heads():
    """A mask of heads that is one of the parameters."""
    params = drawn(stem=(5, 8), v=(8, 2, 4), mask=(2,), o=(2, 4, 6), head=(6, 3))

    def apply(p, x):
        v = jnp.einsum("bd,dhk->bhk", x @ p["stem"], p["v"])
        return jnp.einsum("bhk,hkm->bm", jnp.einsum("bhk,h->bhk", v, p["mask"]), p["o"]) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def stacked_heads():
    """Kernels of each head, `[heads, inputs, size]`, and values that meet them head by head."""
    params = drawn(stem=(5, 8), q=(2, 8, 4), k=(2, 8, 4), v=(2, 8, 4), o=(2, 4, 6), head=(6, 3))

    def apply(p, x):
        x = x @ p["stem"]
        q, k, v = (jnp.einsum("btd,hdk->bhtk", x, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", q, k))
        y = jnp.einsum("bhqk,bhkd->bhqd", weights, v)
        return jnp.einsum("bhqd,hdm->bqm", y, p["o"]) @ p["head"]

    return apply, params, [jnp.ones((2, 3, 5))]
