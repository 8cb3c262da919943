"""Operations along other axes than the channels lose channels, at sizes that are symbolic too."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import assert_equal, normal, shapes, zeroed
from jax import export, lax

import td

WIDTH, LENGTH = 6, 4
EMPTY, UNUSED = 1, 4  # channels: without incoming weights, without outgoing ones
PARAMS = {"w": normal(5, WIDTH).at[:, EMPTY].set(0.0), "c": normal(WIDTH).at[EMPTY].set(0.0)}
PARAMS |= {"o": normal(WIDTH, 3).at[UNUSED].set(0.0), "table": normal(7, WIDTH).at[:, EMPTY].set(0.0)}
PARAMS |= {"scale": normal(WIDTH).at[EMPTY].set(0.0), "v": normal(5, WIDTH).at[:, EMPTY].set(0.0)}


def tokens(x):
    return (jnp.abs(x[..., 0]) * 2).astype(jnp.int32) % 7


def first(x):
    return (jnp.abs(x[:, :1, :1]) > 1).astype(jnp.int32)


def at_other_rows(h, x):
    return jax.vmap(lambda h, i: h[i])(h, first(x)[..., 0])


def random(h):
    return jax.random.normal(jax.random.key(0), h.shape[1:])


CASES = {  # (h [batch, length, channels], x, params) -> an array with the channels last
    "cumsum": lambda h, x, p: lax.cumsum(h, 1, reverse=True),
    "cumprod": lambda h, x, p: lax.cumprod(h, 1),
    "cummax": lambda h, x, p: lax.cummax(h, 1),
    "cummin": lambda h, x, p: lax.cummin(h, 1),
    "sort": lambda h, x, p: jnp.sort(h, 1),
    "sort by keys": lambda h, x, p: lax.sort((jnp.tanh(x @ p["v"]), h), dimension=1, num_keys=1)[1],
    "argsort": lambda h, x, p: jnp.take_along_axis(h, jnp.argsort(jnp.tanh(x @ p["v"]), 1), 1),
    "top k": lambda h, x, p: lax.top_k(h.swapaxes(1, 2), 2)[0].swapaxes(1, 2),
    "argmax": lambda h, x, p: h * jnp.argmax(x @ p["v"], 1, keepdims=True),
    "product": lambda h, x, p: jnp.prod(h, 1),
    "fft": lambda h, x, p: jnp.fft.fft(h, axis=1).real,
    "set": lambda h, x, p: h.at[:, 0].set(jnp.tanh(x @ p["v"])[:, 1]),
    "add": lambda h, x, p: h.at[:, 1:].add(jnp.tanh(x @ p["v"])[:, :-1]),
    "multiply": lambda h, x, p: h.at[:, 0].multiply(2.0),
    "max": lambda h, x, p: h.at[:, jnp.array([0, 2])].max(jnp.tanh(x @ p["v"])[:, :2]),
    "segments": lambda h, x, p: jax.ops.segment_sum(h[0], tokens(x)[0], 7),
    "update": lambda h, x, p: lax.dynamic_update_slice_in_dim(h, jnp.tanh(x[:, :1] @ p["v"]), first(x)[0, 0, 0], 1),
    "first": lambda h, x, p: h[:, 0],
    "last": lambda h, x, p: h[:, -1],
    "every other": lambda h, x, p: h[:, ::2],
    "corners": lambda h, x, p: jnp.stack([h, h], 2)[1:, 1:, ::2, ::-1][..., ::-1],
    "take": lambda h, x, p: jnp.take(h, np.array([0, 2, 3]), 1),
    "take along": lambda h, x, p: jnp.take_along_axis(h, first(x), 1),
    "take along each": lambda h, x, p: jnp.take_along_axis(h, jnp.argmin(x @ p["v"], 1, keepdims=True), 1),
    "rows": lambda h, x, p: at_other_rows(h, x),
    "resized": lambda h, x, p: jax.image.resize(h, (len(h), 2 * h.shape[1], WIDTH), "bilinear"),
    "noise": lambda h, x, p: h * (random(h) > 0),
    "unit norm": lambda h, x, p: h / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "remainder": lambda h, x, p: h % jnp.exp(x[..., :1]),
    "embedding": lambda h, x, p: jnp.tanh(jnp.take(p["table"], tokens(x), axis=0)) + h,
    "whole numbers": lambda h, x, p: jnp.take((9 * p["table"]).astype(jnp.int32), tokens(x), axis=0) * h,
    "interleaved": lambda h, x, p: lax.associative_scan(jnp.add, h, axis=1),
    "added positions": lambda h, x, p: h * jnp.cos(jnp.arange(h.shape[1]))[:, None],
}


def network(name):
    def apply(params, x):
        hidden = jax.nn.relu(x @ params["w"] + params["c"])
        return CASES[name](hidden, x, params) @ params["o"]

    return apply


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", CASES)
def test_channels_without_incoming_or_outgoing_weights_are_lost(name):
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PARAMS), normal(2, LENGTH, 5)
    small = td.compact(network(name), params, x)
    assert "frozen" not in small.summary
    assert shapes(small)["w"] == (5, WIDTH - 2) and shapes(small)["o"] == (WIDTH - 2, 3)
    assert_equal(network(name), params, small, normal(2, LENGTH, 5, seed=1))
    if name != "interleaved":  # whose equations depend on the length
        assert_equal(network(name), params, small, normal(3, LENGTH + 2, 5, seed=2))


UNKNOWN_TO_JAX = {"resized"}  # JAX resizes, transforms and selects at known lengths alone
KNOWN_LENGTH = {*UNKNOWN_TO_JAX, "top k", "fft", "max", "take", "interleaved"}


LENGTHS = [(name, "b, t, 5") for name in CASES if name not in KNOWN_LENGTH]
BATCHES = [(name, "b, 4, 5") for name in CASES if name not in UNKNOWN_TO_JAX]
SYMBOLIC = [*LENGTHS[:4], *(pytest.param(*case, marks=pytest.mark.slow) for case in (*LENGTHS[4:], *BATCHES))]


@pytest.mark.parametrize(("name", "shape"), SYMBOLIC, ids=str)
def test_symbolic_sizes_are_exported(name, shape):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    small = td.compact(network(name), params, jax.ShapeDtypeStruct((2, LENGTH, 5), jnp.float32))
    x = jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float32)
    exported = export.export(small.apply)(small.params, x)
    assert all(n in str(exported.in_avals[-1].shape) for n in shape.split(", "))


def norm(h, axes=-1):
    """In two passes, as in a paper."""
    centred = h - h.mean(axes, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(axes, keepdims=True) + 1e-5)


def two_passes(params, h):
    return norm(h) * params["scale"] + params["offset"]


def by_variance(params, h):
    return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5) * params["scale"]


def equinox(params, h):
    layer = eqx.tree_at(lambda m: (m.weight, m.bias), eqx.nn.LayerNorm(WIDTH), (params["scale"], params["offset"]))
    return jax.vmap(jax.vmap(layer))(h)


def haiku(params, h):
    layer = hk.without_apply_rng(hk.transform(lambda h: hk.LayerNorm(-1, True, True)(h)))
    return layer.apply({"layer_norm": {"scale": params["scale"], "offset": params["offset"]}}, h)


def flax(params, h):
    layer = nn.LayerNorm(use_fast_variance=False)
    return layer.apply({"params": {"scale": params["scale"], "bias": params["offset"]}}, h)


def rms(params, h):
    return h * lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-5) * params["scale"]


def group(params, h):
    return norm(h.reshape(*h.shape[:-1], 2, -1), (1, 3)).reshape(h.shape) * params["scale"]


LIBRARIES = [pytest.param(layer, marks=pytest.mark.slow) for layer in (equinox, haiku, flax)]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("layer", [two_passes, by_variance, rms, group, *LIBRARIES])
def test_norms_shrink_with_the_stream(layer):
    """Of two groups of three channels the first two are dead: no array of the smaller network has the whole width."""
    dead = jnp.array([0, 1, 3, 4])
    params = {"table": normal(7, WIDTH).at[:, dead].set(0.0), "o": normal(WIDTH, 3)}
    params |= {"scale": normal(WIDTH).at[dead].set(0.0), "offset": normal(WIDTH).at[dead].set(0.0)}
    params |= {"w": normal(WIDTH, 8), "v": normal(8, WIDTH).at[:, dead].set(0.0)}

    def apply(params, tokens):
        stream = jnp.take(params["table"], tokens, axis=0)
        stream = stream + jax.nn.relu(layer(params, stream) @ params["w"]) @ params["v"]
        return layer(params, stream) @ params["o"]

    draw = lambda *shape: jnp.arange(np.prod(shape)).reshape(shape) % 7  # noqa: E731
    small = td.compact(apply, params, draw(2, 4))
    for shape in ((2, 4), (3, 5)):
        assert_equal(apply, params, small, draw(*shape))
    left = {leaf.shape for leaf in jax.tree.leaves(small.params) if leaf.size}
    assert left == {(7, 2), (2, 3), (2,), (2, 8), (8, 2)}
    assert f",{WIDTH}]" not in str(jax.make_jaxpr(small.apply)(small.params, draw(2, 4)))


@pytest.mark.usefixtures("in_float64")
def test_a_step_of_decoding_keeps_its_cache_whole_and_loses_what_writes_to_it():
    def step(params, cache, place, token):
        """The cache is an input and an output."""
        new = jnp.take(params["table"], token, axis=0) @ params["w"]  # [batch, 1, channels]
        cache = lax.dynamic_update_slice_in_dim(cache, new, place, 1)
        own = lax.dynamic_update_slice_in_dim(jnp.zeros_like(cache), jnp.tanh(new), place, 1)
        return cache, (jax.nn.softmax(cache.sum(-1))[..., None] * own).sum(1) @ params["o"]

    params = {"table": normal(7, WIDTH).at[:, EMPTY].set(0.0), "w": normal(WIDTH, 8).at[:, 2].set(0.0)}
    params |= {"o": normal(8, 3).at[UNUSED].set(0.0)}
    small = td.compact(step, params, normal(2, 5, 8), jnp.int32(0), jnp.zeros((2, 1), jnp.int32))
    assert_equal(step, params, small, normal(2, 5, 8), jnp.int32(3), jnp.ones((2, 1), jnp.int32))
    assert shapes(small) == {"table": (7, WIDTH - 1), "w": (WIDTH - 1, 7), "o": (6, 3)}


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cumlogsumexp", "reduce_prod", "fft"])
def test_trap_constants_of_an_axis_that_grows_are_no_constants_of_its_length(name):
    functions = {"reduce_prod": lambda h: jnp.prod(h, 1), "fft": lambda h: jnp.fft.fft(h, axis=1).real}
    function = functions.get(name) or (lambda h: getattr(lax, name)(h, axis=1))
    apply = lambda params, x: function(jax.nn.relu(x @ params["w"] + 1.5)) @ params["o"]  # noqa: E731
    params = {"w": normal(5, WIDTH).at[:, EMPTY].set(0.0), "o": normal(WIDTH, 3)}
    for example in (1, 4):
        small = td.compact(apply, params, normal(2, example, 5))
        for length in (example, 2 * example + 1) if example > 1 else (1,):
            assert_equal(apply, params, small, normal(3, length, 5))


@pytest.mark.usefixtures("in_float64")
def test_trap_updates_of_other_numbers_are_no_constants():
    """A channel of ones that is written to a channel of twos, at places that inputs decide."""

    def apply(params, x):
        hidden = jax.nn.relu(x @ params["w"] + jnp.arange(WIDTH))
        place = first(x)[0, 0, 0]
        written = lax.dynamic_update_slice_in_dim(hidden, hidden[:, :1] / 2, place, 1)
        return written @ params["o"], hidden.at[:, place].set(0.5) @ params["o"], hidden.at[:, place].add(1.0)

    params = {"w": normal(5, WIDTH).at[:, EMPTY:4].set(0.0), "o": normal(WIDTH, 3)}
    small = td.compact(apply, params, normal(2, LENGTH, 5))
    assert_equal(apply, params, small, normal(2, LENGTH, 5, seed=1))
    assert_equal(apply, params, small, -normal(3, LENGTH + 1, 5, seed=2))


@pytest.mark.parametrize("write", ["set", "add", "multiply", "max"])
def test_writes_at_a_known_channel(write):
    """Channels that are written are needed from the update alone; the others lose what is dead."""

    def apply(p, x):
        h = jax.nn.relu(x @ p["in"])
        return getattr(h.at[..., 2], write)(h[..., 0]) @ p["out"]

    params = {"in": zeroed(normal(4, 6), (1, [1, 5])), "out": normal(6, 3, seed=1)}
    small = td.compact(apply, params, normal(2, 5, 4), keep="smallest")
    assert shapes(small) == {"in": (4, 3 if write == "set" else 4), "out": (4, 3)}
    for size in ((2, 5, 4), (3, 1, 4)):
        assert_equal(apply, params, small, normal(*size), tolerance=1e-5)


def test_writes_at_a_known_place_of_an_axis_of_any_size():
    def apply(p, x):
        return x.at[:, 0].set(p["first"]) @ p["in"]

    params = {"first": zeroed(normal(4), (0, [1])), "in": zeroed(normal(4, 6), (0, [3]))}
    small = td.compact(apply, params, normal(2, 5, 4))
    for size in ((2, 5, 4), (3, 1, 4)):
        assert_equal(apply, params, small, normal(*size), tolerance=1e-5)
