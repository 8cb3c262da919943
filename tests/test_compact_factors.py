"""Units that change places within slices: fused kernels, layers by index, equal outputs, sizes counted by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import assert_equal, normal, shapes

import td

pytestmark = pytest.mark.usefixtures("in_float64")


def attend(q, k, v):
    """Attention of `[tokens, heads, columns]`; several heads of queries may share one of keys and values."""
    k, v = (jnp.repeat(z, q.shape[1] // z.shape[1], 1) for z in (k, v))
    weights = jax.nn.softmax(jnp.einsum("qhe,khe->hqk", q, k))
    return jnp.einsum("hqk,khe->qhe", weights, v).reshape(len(q), -1)


def split(qkv):
    """As in GPT-2: `[tokens, 3 x heads x columns]`."""
    return [part.reshape(len(part), 2, 4) for part in jnp.split(qkv, 3, -1)]


def by_index(qkv):
    """As in timm: `[tokens, 3, heads, columns]`."""
    qkv = qkv.reshape(len(qkv), 3, 2, 4)
    return [(qkv[:, i] + qkv[:, i]) / 2 for i in range(3)]


def by_head(qkv):
    """As in GPT-NeoX: `[tokens, heads, 3 x columns]`."""
    return jnp.split(qkv.reshape(len(qkv), 2, 12), 3, -1)


def grouped(qkv):
    """As in Phi-3: four heads of queries and two each of keys and values, of 3 columns."""
    return [part.reshape(len(part), -1, 3) for part in jnp.split(qkv, [12, 18], -1)]


def network(parts):
    def apply(params, x):
        h = x @ params["first"]
        return attend(*parts(h @ params["qkv"] + params["bias"])) @ params["out"] @ params["last"]

    return apply


def fused_params(parts, seed=0):
    """Params of which each head has lost columns of its own: one of queries, another one of values."""
    rng, place = np.random.default_rng(seed), jnp.arange(24)[None]
    q, _, v = (np.asarray(part)[0] for part in parts(place))
    dead = [row[rng.integers(len(row))] for row in (*q[:: len(q) // 2], *v)]
    if parts is grouped:  # a column of keys goes with those of all its heads of queries
        dead = [row[rng.integers(3)] for row in v]
    params = {"first": normal(5, 6), "qkv": normal(6, 24, seed=1), "bias": normal(24, seed=2)}
    params |= {"out": normal(q.size, 6, seed=3), "last": normal(6, 2, seed=4)}
    for name in ("qkv", "bias"):
        params[name] = jnp.asarray(np.where(np.isin(np.arange(24), dead), 0, params[name]))
    return params


@pytest.mark.parametrize("parts", [split, by_index, by_head, grouped])
def test_columns_of_fused_kernels(parts):
    apply, params, x = network(parts), fused_params(parts), normal(7, 5)
    small = td.compact(apply, params, x, keep="smallest")
    columns, rows = (22, 8) if parts is grouped else (18, 6)  # those of keys go with those of queries
    assert shapes(small)["qkv"] == (6, columns) and shapes(small)["out"] == (rows, 6)
    for length in (7, 3):
        assert_equal(apply, params, small, normal(length, 5))
    plan = json.loads(json.dumps(small.plan))
    again = td.apply_plan(apply, jax.tree.map(lambda leaf: 2 * leaf, params), plan, x)
    assert shapes(again) == shapes(small) and again.plan == small.plan


def layered(params, x):
    """Residual blocks whose leaves are stacked, each with attention of one fused kernel, by index."""
    x = x @ params["first"]
    for i in range(3):
        q, k, v = split(x @ params["qkv"][i])
        x = x + attend(q, k, v) @ params["out"][i]
        x = x + jax.nn.relu(x @ params["up"][i]) @ params["down"][i]
    return x @ params["last"]


def test_layers_by_index():
    """Every layer has lost units and columns of its own."""
    shapes_ = {"first": (5, 6), "qkv": (3, 6, 24), "out": (3, 8, 6), "up": (3, 6, 5), "down": (3, 5, 6), "last": (6, 2)}
    params = {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes_.items())}
    params["qkv"] = params["qkv"].at[[0, 1, 2], :, [16, 18, 17]].set(0).at[[0, 1, 2], :, [23, 20, 22]].set(0)
    params["up"] = params["up"].at[[0, 1, 2], :, [4, 0, 1]].set(0).at[[0, 1, 2], :, [3, 1, 2]].set(0)
    small, x = td.compact(layered, params, normal(7, 5), keep="smallest"), normal(4, 5)
    found = shapes(small)
    assert found["up"] == (3, 6, 3) and found["down"] == (3, 3, 6)
    assert found["qkv"] == (3, 6, 22) and found["out"] == (3, 6, 6)
    assert_equal(layered, params, small, x)


def test_a_slice_and_the_whole():
    """Where entries of the whole value meet others, its slices keep their places."""

    def apply(params, x):
        h = jax.nn.relu(x @ params["in"]).reshape(-1, 3, 4)
        return h[:, 0] @ params["one"] + h[:, 1] @ params["two"] + h.sum(1) @ params["all"]

    params = {"in": normal(5, 12), "one": normal(4, 2), "two": normal(4, 2, seed=1), "all": normal(4, 2, seed=2)}
    params["in"] = params["in"].at[:, [0, 5, 10]].set(0)
    small = td.compact(apply, params, normal(3, 5), keep="smallest")
    assert_equal(apply, params, small, normal(3, 5))


def test_slices_that_overlap():
    def apply(params, x):
        h = jax.nn.relu(x @ params["in"]).reshape(-1, 3, 4)
        one = jnp.einsum("bhe,he->b", h[:, :2], params["one"])
        return one[:, None] + jnp.einsum("bhe,he->b", h[:, 1:], params["two"])[:, None] + h[:, 1] @ params["all"]

    params = {"in": normal(5, 12), "one": normal(2, 4), "two": normal(2, 4, seed=1), "all": normal(4, 2, seed=2)}
    params["in"] = params["in"].at[:, [0, 5, 10]].set(0)
    small = td.compact(apply, params, normal(3, 5), keep="smallest")
    assert_equal(apply, params, small, normal(3, 5))
