"""Dead channels that are kept for speed: equal outputs, no copies, plans that say so, and where removal pays."""

import json
from collections import Counter
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import counted
from jax import lax

import td

COPIES = ("concatenate", "gather", "slice")


def conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def stream(params, x):
    """A residual stream of two writers."""
    x = conv(x, params["stem"])
    for name in ("one", "two"):
        x = x + conv(jax.nn.relu(x), params[name])
    return jax.nn.relu(x).mean((1, 2)) @ params["last"]


def writers_pruned(width, side=3):
    """Parameters of `stream` where each writer has lost half of its channels, drawn."""
    rng = np.random.default_rng(0)
    shapes = {"stem": (1, 1, 8, width), "one": (side, side, width, width), "two": (side, side, width, width)}
    params = {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])) for name, shape in shapes.items()}
    for name in ("one", "two"):
        params[name][..., rng.permutation(width)[: width // 2]] = 0
    params["last"] = rng.normal(size=(width, 3))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def copies(small, *inputs):
    """Equations of the smaller network that only move entries."""
    jaxpr = jax.make_jaxpr(small.apply)(small.params, *inputs).jaxpr.eqns[0].params["jaxpr"]
    return {name: n for name, n in Counter(e.primitive.name for e in jaxpr.eqns).items() if name in COPIES}


def images(batch=4, side=16):
    return jnp.asarray(np.random.default_rng(1).normal(size=(batch, side, side, 8)), jnp.float32)


def test_fast_has_no_copies_and_smallest_no_more_parameters():
    params, x = writers_pruned(16, side=1), images()
    found = {keep: td.compact(stream, params, x, keep=keep) for keep in ("fast", "smallest")}
    for small in found.values():
        np.testing.assert_allclose(small.apply(small.params, x), stream(params, x), rtol=1e-4, atol=1e-5)
    assert copies(found["fast"], x) == {} != copies(found["smallest"], x)
    assert counted(found["smallest"]) < counted(found["fast"])
    assert found["smallest"].flops[1] < found["fast"].flops[1] <= found["fast"].flops[0]
    assert "kept for speed: " in found["fast"].summary and "kept for speed" not in found["smallest"].summary


@pytest.mark.parametrize("keep", ["fast", "smallest"])
def test_plans_repeat_what_is_kept(keep):
    params, x = writers_pruned(16, side=1), images()
    small = td.compact(stream, params, x, keep=keep)
    other = jax.tree.map(lambda leaf: 2 * leaf, params)
    again = td.apply_plan(stream, other, json.loads(json.dumps(small.plan)), x)
    assert ("kept for speed" in small.summary) == (keep == "fast")
    assert again.plan == small.plan and again.summary == small.summary
    np.testing.assert_allclose(again.apply(again.params, x), stream(other, x), rtol=1e-4, atol=1e-5)


def test_channels_go_where_their_products_cost_more_than_the_copies():
    params, x = writers_pruned(96), images(1, 16)
    small = td.compact(stream, params, x)
    assert small.params.params["two"].shape == (3, 3, 96, 48) and "kept for speed" not in small.summary


def test_channels_of_a_stream_are_sorted_into_slices():
    params, x = writers_pruned(256, side=1), images(1, 2)
    small = td.compact(stream, params, x, keep="smallest")
    np.testing.assert_allclose(small.apply(small.params, x), stream(params, x), rtol=1e-4, atol=1e-5)
    assert small.params.params["one"].shape[-1] == small.params.params["two"].shape[-1] == 128
    assert "gather" not in copies(small, x) and copies(small, x)["slice"] < 10


def test_a_network_that_would_be_slower_stays_whole():
    def network(params, x):
        one, two = (jnp.einsum("bd,dhe->bhe", x, params[name]) for name in ("one", "two"))
        return jax.nn.relu(one + two)

    rng, params = np.random.default_rng(0), {}
    for name, start in (("one", 0), ("two", 1)):
        kernel = rng.normal(size=(2, 4, 8))
        kernel[:, start::2] = kernel[..., start::2] = 0
        params[name] = jnp.asarray(kernel, jnp.float32)
    x = jnp.asarray(rng.normal(size=(1024, 2)), jnp.float32)
    small = td.compact(network, params, x)
    np.testing.assert_allclose(small.apply(small.params, x), network(params, x), rtol=1e-5, atol=1e-6)
    assert small.params.params["one"].shape == (2, 4, 8) and copies(small, x) == {}
    assert "kept for speed: all channels" in small.summary
    assert td.compact(network, params, x, keep="smallest").params.params["one"].shape == (2, 2, 4)


@pytest.mark.parametrize("name", ["smallest", "fast", "whole"])
def test_timed_takes_the_fastest(name, monkeypatch):
    """The clock decides, not the estimate; a plan repeats it."""
    taken = {other: [1e-3 * (1 + (other != name))] for other in ("smallest", "fast", "whole")}
    speed = import_module("td.compact.speed")
    monkeypatch.setattr(speed, "interleaved", lambda networks, rounds: {each: taken[each] for each in networks})
    params, x = writers_pruned(16, side=1), images()
    small = td.compact(stream, params, x, keep="timed")
    assert f"{name} 1 ms" in small.summary and f"{name} is kept" in small.summary
    assert (small.params.params["one"].shape[-1] < 16) == (name == "smallest")
    assert td.apply_plan(stream, params, small.plan, x).summary == small.summary


def test_timed_runs_every_network():
    params, x = writers_pruned(16, side=1), images()
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    small = td.compact(stream, params, shape, keep="timed")
    np.testing.assert_allclose(small.apply(small.params, x), stream(params, x), rtol=1e-4, atol=1e-5)
    assert "timed: smallest " in small.summary and " ms, whole " in small.summary


def test_another_word_is_rejected():
    with pytest.raises(td.UserError, match="keep"):
        td.compact(stream, writers_pruned(8), images(), keep="fastest")
