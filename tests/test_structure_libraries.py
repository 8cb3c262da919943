"""The structure of networks that other libraries' layers make: Flax Linen and NNX, Equinox, Haiku."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from td.structure import trace

eqx, hk = map(pytest.importorskip, ("equinox", "haiku"))

KEY = jax.random.key(0)
IDS, SERIES, IMAGES = jnp.ones((2, 7), int), jnp.ones((2, 7, 6)), jnp.ones((2, 16, 16, 3))


def linen(module, inputs):
    params = jax.eval_shape(module.init, KEY, inputs)["params"]
    return lambda p, x: module.apply({"params": p}, x), params, inputs


def of_nnx(module, inputs):
    graph, params, rest = nnx.split(module(nnx.Rngs(0)), nnx.Param, ...)
    return lambda p, x: nnx.merge(graph, p, rest)(x), nnx.to_pure_dict(params), inputs


def equinox(build, inputs, call=lambda module, x: module(x)):
    params, static = eqx.partition(eqx.filter_eval_shape(build), lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return lambda p, x: jax.vmap(lambda x: call(eqx.combine(p, static), x))(x), params, inputs


def haiku(function, inputs):
    """A function of the inputs and of `is_training`."""
    network = hk.without_apply_rng(hk.transform_with_state(function))
    params, state = jax.eval_shape(lambda x: network.init(KEY, x, True), inputs)
    state = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), state)
    return lambda p, x: network.apply(p, state, x, False)[0], params, inputs


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=32, out_features=24, name="att")(y, y)
        return x + nn.Dense(24, name="down")(nn.gelu(nn.Dense(40, name="up")(nn.LayerNorm()(x)))), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, ids):
        blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=5)
        x, _ = blocks(name="blocks")(nn.Embed(50, 24, name="embed")(ids), None)
        return nn.Dense(3, name="head")(nn.LayerNorm()(x).mean(1))


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.patch = nnx.Conv(3, 24, (4, 4), 4, rngs=rngs)
        self.norm, self.head = nnx.LayerNorm(24, rngs=rngs), nnx.Linear(24, 3, rngs=rngs)
        self.att = nnx.MultiHeadAttention(4, 24, 32, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(24, 40, rngs=rngs), nnx.Linear(40, 24, rngs=rngs)
        self.batch_norm = nnx.BatchNorm(40, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        x = self.patch(x).reshape(len(x), -1, 24)
        x = x + self.att(self.norm(x))
        return self.head((x + self.down(nnx.relu(self.batch_norm(self.up(x))))).mean(1))


def convolutional():
    relu, flat = eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(jnp.ravel)
    convs = [eqx.nn.Conv2d(3, 5, 3, key=KEY), relu, eqx.nn.Conv2d(5, 8, 3, key=KEY)]
    return eqx.nn.Sequential([*convs, eqx.nn.MaxPool2d(2, 2), flat, eqx.nn.MLP(8 * 6 * 6, 3, 22, 2, key=KEY)])


def attention():
    embed, norm, head = eqx.nn.Embedding(50, 24, key=KEY), eqx.nn.LayerNorm(24), eqx.nn.Linear(24, 3, key=KEY)
    att = eqx.nn.MultiheadAttention(4, 24, qk_size=8, vo_size=7, key=KEY)
    return dict(embed=embed, att=att, norm=norm, mlp=eqx.nn.MLP(24, 24, 40, 1, key=KEY), head=head)


def attend(layers, ids):
    x = jax.vmap(layers["embed"])(ids)
    x = x + layers["att"](x, x, x)
    return layers["head"]((x + jax.vmap(layers["mlp"])(jax.vmap(layers["norm"])(x))).mean(0))


def unroll(layers, x):
    cell, head = layers
    return head(jax.lax.scan(lambda state, x: (cell(x, state), None), jnp.zeros(10), x)[0])


def lstm(x, _):
    core = hk.LSTM(10)
    x, _ = hk.dynamic_unroll(core, hk.Linear(8)(x), core.initial_state(len(x)), time_major=False)
    return hk.Linear(3, name="head")(x[:, -1])


def stacked(ids, _):
    def block(x):
        norms = [hk.LayerNorm(-1, True, True) for _ in range(2)]
        att = hk.MultiHeadAttention(4, 8, w_init=hk.initializers.Constant(1), model_size=24, name="att")
        x = x + att(y := norms[0](x), y, y)
        return x + hk.Linear(24, name="down")(jax.nn.gelu(hk.Linear(40, name="up")(norms[1](x))))

    x = hk.experimental.layer_stack(5, name="blocks")(block)(hk.Embed(50, 24)(ids))
    return hk.Linear(50, name="head")(x)


LAST, HEADS, OUT_IN, OUT_IN_CONV = ((), (-1,)), ((), (-2, -1)), ((), (-2,)), ((), (-4,))
STACKED, STACKED_HEADS = ((0,), (-1,)), ((0,), (-2, -1))
A, M, GRU = "blocks/att", "m/mobile_net_v1_block", "layers_0/cell/ir layers_0/cell/iz layers_0/cell/in"
LSTM = " ".join(f"layers_1/cell/{gate}" for gate in ("ii", "if", "ig", "io", "hi", "hf", "hg", "ho"))

NETWORKS = {
    "linen scan": (
        lambda: linen(Scanned(), IDS),
        {STACKED_HEADS: f"{A}/query {A}/key {A}/value", STACKED: f"{A}/out blocks/up blocks/down", LAST: "head"},
        ("", "head", "embed"),
        f"1 x 24: embed {A}/out*5 blocks/down*5; 20 x 8: {A}/query {A}/key; 20 x 8: {A}/value; 5 x 40: blocks/up",
    ),
    "linen rnn": (
        lambda: linen(nn.Sequential([nn.RNN(nn.GRUCell(10)), nn.RNN(nn.OptimizedLSTMCell(14)), nn.Dense(3)]), SERIES),
        {LAST: f"{GRU} {GRU.replace('/i', '/h')} {LSTM} layers_2"},
        (GRU, "layers_2", ""),
        f"1 x 10: {GRU} {GRU.replace('/i', '/h')}; 1 x 14: {LSTM}",
    ),
    "nnx": (
        lambda: of_nnx(Encoder, IMAGES),
        {HEADS: "att/query att/key att/value", LAST: "patch att/out up down head"},
        ("patch", "head", ""),
        "1 x 24: patch att/out down; 4 x 8: att/query att/key; 4 x 8: att/value; 1 x 40: up",
    ),
    "equinox conv": (
        lambda: equinox(convolutional, IMAGES.transpose(0, 3, 1, 2)),
        {OUT_IN_CONV: "layers/0 layers/2", OUT_IN: "layers/5/layers/0 layers/5/layers/1 layers/5/layers/2"},
        ("layers/0", "layers/5/layers/2", ""),
        "1 x 8: layers/2; 1 x 22: layers/5/layers/0; 1 x 22: layers/5/layers/1",
    ),
    "equinox attention": (
        lambda: equinox(attention, IDS, attend),
        {OUT_IN: "att/query_proj att/key_proj att/value_proj att/output_proj mlp/layers/0 mlp/layers/1 head"},
        ("", "head", "embed"),
        "1 x 24: embed att/output_proj mlp/layers/1; 4 x 8: att/query_proj att/key_proj; 4 x 7: att/value_proj; "
        "1 x 40: mlp/layers/0",
    ),
    "equinox gru": (
        lambda: equinox(lambda: [eqx.nn.GRUCell(6, 10, key=KEY), eqx.nn.Linear(10, 3, key=KEY)], SERIES, unroll),
        {OUT_IN: "0/weight_ih 0/weight_hh 1"},
        ("0/weight_ih", "1", ""),
        "1 x 10: 0/weight_ih*3 0/weight_hh*3",
    ),
    "haiku mobilenet": (
        lambda: haiku(lambda x, train: hk.nets.MobileNetV1((1, 2), (14, 18), 3, name="m")(x, train), IMAGES),
        {LAST: f"m/conv2_d {M}/depthwise_conv {M}/pointwise_conv {M}_1/depthwise_conv {M}_1/pointwise_conv m/logits"},
        ("m/conv2_d", "m/logits", ""),
        f"1 x 32: m/conv2_d {M}/depthwise_conv; 1 x 14: {M}/pointwise_conv {M}_1/depthwise_conv; "
        f"1 x 18: {M}_1/pointwise_conv",
    ),
    "haiku lstm": (
        lambda: haiku(lstm, SERIES),
        {LAST: "linear lstm/linear head"},
        ("linear", "head", ""),
        "1 x 10: lstm/linear*4",
    ),
    "haiku layer_stack": (
        lambda: haiku(stacked, IDS),
        {STACKED: f"{A}/query {A}/key {A}/value {A}/linear blocks/up blocks/down", LAST: "head"},
        ("", "head", "embed"),
        f"1 x 24: embed {A}/linear*5 blocks/down*5; 20 x 8: {A}/query {A}/key; 20 x 8: {A}/value; 5 x 40: blocks/up",
    ),
}
"""Network; kernels by `(stacked, units)`; first, last, embeddings; families: rankings x width: kernels*columns."""


def names(paths):
    return " ".join(re.sub("/(kernel|embeddings?|weight|w)$", "", path) for path in paths)


def widths(structure):
    """Families and the leaves that make a group, with their columns a group where there are several."""
    for numbers in structure.families.values():
        counts = {names([path]): np.isin(ids, numbers).sum() / numbers.size for path, ids in structure.units.items()}
        made = " ".join(name if n == 1 else f"{name}*{n:g}" for name, n in counts.items() if n)
        yield f"{' x '.join(map(str, numbers.shape))}: {made}"


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_roles_and_widths(name):
    build, kernels, roles, families = NETWORKS[name]
    structure = trace(*build())
    found = {}
    for path, kernel in structure.every.items():
        found.setdefault((kernel.stacked, kernel.units), []).append(path)
    assert {axes: names(paths) for axes, paths in found.items()} == kernels
    assert tuple(map(names, (structure.first, structure.last, structure.embeddings))) == roles
    assert sorted(widths(structure)) == sorted(families.split("; "))
