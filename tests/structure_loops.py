"""Tiny networks with loops, branches and leaves that are used in unusual ways: each gives `(apply, params, inputs)`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from structure_networks import drawn, normed, rms


def lstm():
    """An LSTM scanned over time."""
    params = drawn(inner=(5, 32), hidden=(8, 32), bias=(32,), head=(8, 3))

    def apply(p, x):
        def step(state, x):
            h, c = state
            gates = x @ p["inner"] + h @ p["hidden"] + p["bias"]
            i, f, g, o = jnp.split(gates, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((2, 8))
        _, outputs = lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))
        return outputs.swapaxes(0, 1) @ p["head"]

    return apply, params, [jnp.ones((2, 4, 5))]


def layer(x, p):
    """A Transformer layer of two heads."""
    y = normed(x, p["scale"], p["offset"])
    q, k, v = (jnp.einsum("btd,dhk->bthk", y, p[name]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    x = x + jnp.einsum("bhqk,bkhd,hdm->bqm", weights, v, p["o"])
    return x + jax.nn.gelu(rms(x, p["rms"]) @ p["up"]) @ p["down"]


def layer_params(layers):
    """Stacked Transformer layers."""
    shapes = {"scale": (8,), "offset": (8,), "rms": (8,), "up": (8, 12), "down": (12, 8), "o": (2, 4, 8)}
    shapes |= {name: (8, 2, 4) for name in "qkv"}
    return drawn(stem=(5, 8), layers={name: (layers, *shape) for name, shape in shapes.items()}, head=(8, 3))


def scanned(layers=3):
    """Transformer layers that are stacked, rematerialised and scanned."""

    def apply(p, x):
        step = jax.checkpoint(lambda x, p: (layer(x, p), None))
        return lax.scan(step, x @ p["stem"], p["layers"])[0] @ p["head"]

    return apply, layer_params(layers), [jnp.ones((2, 4, 5))]


def indexed(layers=3):
    """The same layers, chosen by a loop's counter."""

    def apply(p, x):
        one = lambda i: jax.tree.map(lambda leaf: leaf[i], p["layers"])  # noqa: E731
        return lax.fori_loop(0, layers, lambda i, x: layer(x, one(i)), x @ p["stem"]) @ p["head"]

    return apply, layer_params(layers), [jnp.ones((2, 4, 5))]


def branches():
    """One of two kernels by a number that comes with the inputs."""
    params = drawn(stem=(5, 8), one=(8, 12), other=(8, 12), out=(12, 6), head=(6, 3))

    def apply(p, x, which):
        x = x @ p["stem"]
        x = lax.cond(which > 0, lambda x: x @ p["one"], lambda x: x @ p["other"], x)
        return jax.nn.relu(x) @ p["out"] @ p["head"]

    return apply, params, [jnp.ones((2, 5)), jnp.ones((), int)]


def standardised():
    """A kernel with its columns standardised."""
    params = drawn(stem=(5, 8), kernel=(8, 6), gain=(6,), head=(6, 3))

    def apply(p, x):
        kernel = normed(p["kernel"], p["gain"], axes=0)
        return jax.nn.relu(x @ p["stem"] @ kernel) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def low_rank():
    """A kernel to which a product of two others is added."""
    params = drawn(stem=(5, 8), kernel=(8, 6), a=(8, 2), b=(2, 6), head=(6, 3))

    def apply(p, x):
        return jax.nn.relu(x @ p["stem"] @ (p["kernel"] + p["a"] @ p["b"])) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def low_rank_branch():
    """The same as a branch of the network."""
    params = drawn(stem=(5, 8), kernel=(8, 6), a=(8, 2), b=(2, 6), head=(6, 3))

    def apply(p, x):
        x = x @ p["stem"]
        return jax.nn.relu(x @ p["kernel"] + x @ p["a"] @ p["b"]) @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def shared():
    """A kernel that is used twice, once for an output."""
    params = drawn(stem=(5, 8), twice=(8, 8), inner=(8, 8), head=(8, 3))

    def apply(p, x):
        x = jax.nn.relu(x @ p["stem"])
        x = jax.nn.relu(x @ p["twice"])
        return jax.nn.relu(x @ p["twice"]) @ p["inner"] @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def autoencoder():
    """A kernel that is used again transposed."""
    params = drawn(stem=(5, 8), tied=(8, 6), middle=(6, 6), out=(8, 4), head=(4, 3))

    def apply(p, x):
        code = jax.nn.relu(jax.nn.relu(x @ p["stem"]) @ p["tied"]) @ p["middle"]
        return (code @ p["tied"].T) @ p["out"] @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def reshaped():
    """Kernels that are leaves reshaped, sliced and concatenated."""
    params = drawn(stem=(5, 8), flat=(8 * 6,), one=(6, 4), other=(6, 5), biases=[(4,), (5,)], wide=(9, 7), head=(7, 3))

    def apply(p, x):
        x = jax.nn.relu(x @ p["stem"]) @ p["flat"].reshape(8, 6)
        x = jax.nn.relu(x @ jnp.concatenate([p["one"], p["other"]], 1) + jnp.concatenate(p["biases"]))
        return jax.nn.relu(x @ p["wide"][:, ::-1]) @ p["head"][::-1]

    return apply, params, [jnp.ones((2, 5))]


def along_units(operation):
    """An operation along units, between a kernel whose units stay and two others."""
    params = drawn(stem=(5, 8), a=(8, 6), b=(6, 10), c=(10, 4), head=(4, 3))

    def apply(p, x):
        x = jax.nn.relu(operation(jax.nn.relu(x @ p["stem"]) @ p["a"]) @ p["b"])
        return x @ p["c"] @ p["head"]

    return apply, params, [jnp.ones((2, 5))]


def cumulative():
    """A cumulative sum of units."""
    return along_units(lambda x: jnp.cumsum(x, 1))


def spectral():
    """A Fourier transform of units."""
    return along_units(lambda x: jnp.fft.fft(x).real)


def ordered():
    """Units in order of size."""
    return along_units(lambda x: jnp.sort(x, 1))


def loss():
    """A loss of images and labels."""
    params = drawn(stem=(5, 8), a=(8, 6), b=(6, 3))

    def apply(p, x, labels):
        logits = jax.nn.relu(jax.nn.relu(x @ p["stem"]) @ p["a"]) @ p["b"]
        return -(jax.nn.log_softmax(logits) * jax.nn.one_hot(labels, 3)).sum(-1).mean()

    return apply, params, [jnp.ones((2, 5)), jnp.zeros(2, int)]


def two_outputs():
    """Logits and features, and a leaf that nothing uses."""
    params = drawn(stem=(5, 8), features=(8, 6), a=(6, 7), b=(7, 3), unused=(4, 4))

    def apply(p, x):
        features = jax.nn.relu(jax.nn.relu(x @ p["stem"]) @ p["features"])
        return {"logits": jax.nn.relu(features @ p["a"]) @ p["b"], "features": features}

    return apply, params, [jnp.ones((2, 5))]


class Linen(nn.Module):
    """Flax modules: an embedding, attention, an LSTM with concatenated kernels and batch normalisation."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8, name="table")(tokens)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm")(x))
        x = nn.RNN(nn.OptimizedLSTMCell(6), name="lstm")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="batch_norm")(nn.Dense(10, name="up")(x)))
        return nn.Dense(3, name="head")(x)


def tagger():
    """The same as a function of its params."""
    tokens = jnp.zeros((2, 4), int)
    variables = Linen().init(jax.random.key(0), tokens)
    rest = {name: leaves for name, leaves in variables.items() if name != "params"}
    return lambda p, x: Linen().apply({"params": p, **rest}, x), variables["params"], [tokens]
