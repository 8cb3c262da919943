"""Kernels by names: real modules of Flax linen, Flax NNX, Equinox and Haiku, and trees that names leave open."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from conftest import arrays
from flax import nnx

import td
from td import kernels

KEY = jax.random.key(0)
equinox = pytest.importorskip("equinox")
haiku = pytest.importorskip("haiku")


def read(params, chosen="."):
    """`{path: (stacked, units)}`, axes counted from the front."""
    views = kernels.find_kernels(params, chosen)
    return {
        path: tuple(tuple(axis % len(view.shape) for axis in axes) for axes in (view.stacked, view.units))
        for path, view in views.items()
    }


def shapes_of(module, *inputs):
    return jax.eval_shape(module.init, KEY, *inputs)["params"]


class Block(nn.Module):
    """A block of a Transformer with everything that is not a kernel beside everything that is."""

    bias: bool = True

    @nn.compact
    def __call__(self, inputs, _=None):
        hidden = nn.LayerNorm()(inputs)
        hidden = inputs + nn.MultiHeadDotProductAttention(4, use_bias=self.bias)(hidden)
        hidden = nn.Dense(24, use_bias=self.bias)(nn.LayerNorm()(hidden))
        return inputs + nn.Dense(8, use_bias=self.bias)(nn.gelu(hidden)), None


TOKENS = jnp.ones((2, 5, 8))
ATTENTION = "MultiHeadDotProductAttention_0"
BLOCK = {
    "Dense_0/kernel": ((), (1,)),
    "Dense_1/kernel": ((), (1,)),
    **{f"{ATTENTION}/{name}/kernel": ((), (1, 2)) for name in ("key", "query", "value")},
    f"{ATTENTION}/out/kernel": ((), (2,)),
}
SCANNED = {path: ((0,), tuple(axis + 1 for axis in units)) for path, (_, units) in BLOCK.items()}


def test_linen_attention_has_heads_times_head_dim_units_and_norms_and_biases_are_no_kernels():
    params = shapes_of(Block(), TOKENS)
    assert read(params) == BLOCK
    assert kernels.find_kernels(params, ".")[f"{ATTENTION}/query/kernel"].matrix_shape == (8, 8)
    assert kernels.find_kernels(params, ".")[f"{ATTENTION}/out/kernel"].matrix_shape == (8, 8)


def test_linen_scanned_layers_are_stacked_as_their_biases_are():
    scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    assert read(shapes_of(scanned(), TOKENS, None)) == SCANNED
    with pytest.raises(td.UserError, match="cannot tell the axes of 'Dense_0/kernel'"):
        read(shapes_of(scanned(bias=False), TOKENS, None))


class Layers(nn.Module):
    @nn.compact
    def __call__(self, images, tokens):
        hidden = nn.Conv(6, (3, 3))(images)
        hidden = nn.BatchNorm(use_running_average=True)(hidden)
        hidden = nn.Conv(6, (3, 3), feature_group_count=6, use_bias=False, name="depthwise")(hidden)
        hidden = nn.ConvTranspose(4, (2, 2))(hidden)
        hidden = nn.Conv(5, (3,), name="conv_in_time")(hidden.reshape(2, -1, 4))
        general = nn.DenseGeneral((2, 3))(hidden)
        table = self.param("pos_embedding", nn.initializers.zeros, (1, 5, 8))
        token, probe = (self.param(name, nn.initializers.zeros, (1, 1, 8)) for name in ("cls", "probe"))
        bias = nn.Embed(7, 4, name="rel_embedding")(tokens)
        return hidden, general, table, token, probe, bias


def test_linen_convolutions_and_what_is_no_kernel():
    params = shapes_of(Layers(), jnp.ones((2, 4, 4, 3)), jnp.ones(2, int))
    assert read(params) == {
        "Conv_0/kernel": ((), (3,)),
        "ConvTranspose_0/kernel": ((), (3,)),
        "DenseGeneral_0/kernel": ((), (1, 2)),
        "conv_in_time/kernel": ((), (2,)),
        "depthwise/kernel": ((), (3,)),
    }


def test_recurrent_cells_of_linen():
    params = shapes_of(nn.RNN(nn.LSTMCell(4)), jnp.ones((1, 5, 3)))
    assert len(read(params)) == 8 and set(read(params).values()) == {((), (1,))}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(4, 8, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.convolutions = nnx.List([nnx.Conv(2, 3, (3, 3), rngs=rngs)])
        self.embed = nnx.Embed(5, 8, rngs=rngs)
        self.lora = nnx.LoRA(8, 2, 6, rngs=rngs)
        self.einsum = nnx.Einsum("bi,ijk->bjk", (3, 4, 5), (4, 5), rngs=rngs)


def test_nnx_modules():
    assert read(nnx.state(Net(nnx.Rngs(0)), nnx.Param)) == {
        **{f"attention/{name}/kernel": ((), (1, 2)) for name in ("key", "query", "value")},
        "attention/out/kernel": ((), (2,)),
        "convolutions/0/kernel": ((), (3,)),
        "einsum/kernel": ((), (1, 2)),
    }


def test_nnx_layers_made_by_vmap_are_stacked():
    make = nnx.vmap(lambda key: nnx.Linear(3, 4, rngs=nnx.Rngs(key)))
    assert read(nnx.state(make(jax.random.split(KEY, 5)), nnx.Param)) == {"kernel": ((0,), (2,))}


def test_equinox_modules():
    def layers():
        return {
            "mlp": equinox.nn.MLP(3, 4, 8, 1, key=KEY),
            "conv": equinox.nn.Conv2d(2, 3, 3, key=KEY),
            "bare": equinox.nn.Linear(3, 3, use_bias=False, key=KEY),
            "embed": equinox.nn.Embedding(5, 4, key=KEY),
            "table": equinox.nn.Embedding(5, 4, key=KEY),
            "norm": equinox.nn.LayerNorm((2, 4)),
            "gru": equinox.nn.GRUCell(3, 4, key=KEY),
            "attention": equinox.nn.MultiheadAttention(2, 8, key=KEY),
            "stack": equinox.filter_vmap(lambda key: equinox.nn.Conv2d(2, 3, 3, key=key))(jax.random.split(KEY, 5)),
        }

    shapes = equinox.filter_eval_shape(layers)
    assert read(equinox.filter(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))) == {
        **{f"attention/{name}_proj/weight": ((), (0,)) for name in ("query", "key", "value", "output")},
        "bare/weight": ((), (0,)),
        "conv/weight": ((), (0,)),
        "gru/weight_hh": ((), (0,)),
        "gru/weight_ih": ((), (0,)),
        "mlp/layers/0/weight": ((), (0,)),
        "mlp/layers/1/weight": ((), (0,)),
        "stack/weight": ((0,), (1,)),
    }


def test_haiku_modules():
    def forward(images, tokens):
        hidden = haiku.Conv2D(4, 3)(images)
        hidden = haiku.BatchNorm(True, True, 0.9)(haiku.DepthwiseConv2D(2, 3)(hidden), True)
        hidden = haiku.Linear(8)(haiku.Flatten()(hidden))
        stack = haiku.experimental.layer_stack(3)(lambda h: haiku.LayerNorm(-1, True, True)(haiku.Linear(8)(h)))
        initial = haiku.initializers.RandomNormal()
        words = haiku.Embed(7, 8)(tokens)
        return stack(hidden), haiku.MultiHeadAttention(2, 4, w_init=initial)(words, words, words)

    init = haiku.transform_with_state(forward).init
    params, _ = jax.eval_shape(init, KEY, jnp.ones((2, 4, 4, 2)), jnp.ones((2, 3), int))
    assert read(params) == {
        "__layer_stack_no_per_layer/linear/w": ((0,), (2,)),
        "conv2_d/w": ((), (3,)),
        "depthwise_conv2_d/w": ((), (3,)),
        "linear/w": ((), (1,)),
        **{f"multi_head_attention/{name}/w": ((), (1,)) for name in ("key", "linear", "query", "value")},
    }


def test_a_vision_transformer_as_big_vision_names_and_shapes_it():
    attention = {
        **{name: {"kernel": (32, 4, 8), "bias": (4, 8)} for name in ("query", "key", "value")},
        "out": {"kernel": (4, 8, 32), "bias": (32,)},
    }
    mlp = {"Dense_0": {"kernel": (32, 128), "bias": (128,)}, "Dense_1": {"kernel": (128, 32), "bias": (32,)}}
    norms = {f"LayerNorm_{i}": {"scale": (32,), "bias": (32,)} for i in range(2)}
    block = {"MultiHeadDotProductAttention_0": attention, "MlpBlock_0": mlp, **norms}
    pool = {"probe": (1, 1, 32), "MultiHeadDotProductAttention_0": attention, "MlpBlock_0": mlp}
    vit = {
        "embedding": {"kernel": (16, 16, 3, 32), "bias": (32,)},
        "pos_embedding": (1, 196, 32),
        "cls": (1, 1, 32),
        "Transformer": {"encoderblock_0": block, "encoder_norm": norms["LayerNorm_0"]},
        "MAPHead_0": pool,
        "head": {"kernel": (32, 10), "bias": (10,)},
    }
    found = kernels.find_kernels(arrays(vit))
    assert len(found) == 12 and all(path.endswith("/kernel") for path in found)
    assert not any(path.startswith(("embedding", "head")) for path in found)
    stacked = {"Transformer": {"encoderblock": jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), arrays(block))}}
    views = kernels.find_kernels(stacked, ".*")
    assert {view.matrix_shape[0] for view in views.values()} == {5} and len(views) == 6


def test_four_axes_without_a_bias_are_a_convolution_where_the_name_or_the_window_says_so():
    shapes = {"conv": {"kernel": (1, 7, 8, 16)}, "shortcut": {"kernel": (1, 1, 8, 16)}, "body": {"w": (3, 3, 8, 16)}}
    assert set(read(arrays(shapes)).values()) == {((), (3,))}
    norms = {"layers": {"norm": {"w": (12, 16)}, "RMSNorm_0": {"kernel": (12, 16)}}, "dense": {"kernel": (16, 16)}}
    assert list(read(arrays(norms))) == ["dense/kernel"]


def test_tables_of_top_level_names_are_no_kernels_and_an_unembedding_is_a_last_layer():
    tables = {"W_E": (50, 8), "W_pos": (12, 8), "w_emb": (50, 8), "w_pos": (12, 8)}
    params = arrays({**tables, "W_in": (8, 8), "W_U": (8, 50)})
    assert list(kernels.find_kernels(params)) == ["W_in"] and list(read(params)) == ["W_U", "W_in"]


@pytest.mark.parametrize(("units", "axis"), [(8, 0), (4, -1)])
def test_a_bias_tells_where_the_units_of_a_weight_are(units, axis):
    params = arrays({"linear": {"weight": (8, 4), "bias": (units,)}})
    assert kernels.find_kernels(params, "linear")["linear/weight"].units == (axis,)


UNKNOWN = {
    "a name of somebody's own": {"mixer": {"A_log": (16, 8)}},
    "a tuple": {"hidden": ((8, 4), (4,))},
    "layers stacked with one-dimensional convolutions": {"conv": {"kernel": (6, 5, 16, 16)}},
    "as many layers as the window is long": {"conv": {"kernel": (5, 5, 16, 16)}, "norm": {"scale": (5, 16)}},
    "layers stacked with two-dimensional convolutions": {"conv": {"kernel": (3, 3, 3, 16, 16)}},
    "two heads in Gemma": {"attn": {"kv_einsum": {"w": (2, 2, 16, 8)}}},
    "three heads in Gemma": {"attn": {"qkv_einsum": {"w": (3, 3, 16, 8)}}},
    "units first": {"a": {"kernel": (8, 4), "bias": (8,)}},
    "a convolution or stacked layers": {"body": {"kernel": (3, 8, 8)}},
    "as many heads as layers": {"dense": {"kernel": (4, 4, 6), "bias": (4, 6)}},
    "a weight of either order": {"linear": {"weight": (8, 4)}},
    "a square weight": {"linear": {"weight": (8, 8), "bias": (8,)}},
    "heads without a bias": {"query": {"kernel": (32, 4, 8)}},
    "queries, keys and values without a bias": {"qkv": {"kernel": (3, 3, 4, 8)}},
    "experts of layers": {"moe": {"w_in": (3, 3, 16, 32)}},
    "a table of tokens": {"token_embedding": {"w": (100, 16)}},
    "a table of positions": {"pos_emb": {"kernel": (12, 16)}},
    "a transposed convolution": {"up": {"kernel": (3, 3, 5, 4), "bias": (5,)}},
    "a transposed convolution of Haiku": {"conv2_d_transpose": {"w": (3, 3, 4, 4), "b": (4,)}},
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_names_leave_open_is_an_error(case):
    params = arrays({**UNKNOWN[case], "logits": {"kernel": (4, 2), "bias": (2,)}})
    with pytest.raises(td.UserError, match="cannot tell the axes of") as caught:
        td.prune_mask(params, 0.5)
    assert str(caught.value) in td.describe(params)


@pytest.mark.parametrize("other", [{"kernel": (8, 8), "bias": (8,)}, {"kernel": (8, 4)}])
def test_where_one_kernel_has_its_units_first_no_other_is_sure(other):
    params = arrays({"first": {"kernel": (8, 4), "bias": (8,)}, "other": other})
    chosen = td.Kernels("first", units=(0,))
    assert list(kernels.find_kernels(params, chosen)) == ["first/kernel"]
    with pytest.raises(td.UserError, match="cannot tell the axes of 'other/kernel'"):
        kernels.find_kernels(params, (chosen, "other"))


@pytest.mark.parametrize("layers", [1, 11])
def test_a_network_whose_names_leave_out_no_layer_is_an_error(layers):
    params = arrays({f"Dense_{i}": {"kernel": (4, 4), "bias": (4,)} for i in range(layers + 1)})
    with pytest.raises(td.UserError, match="no kernel is named as a first or last layer"):
        td.targeted("unit").apply(params, td.MaskVars(), key=KEY, step=0)
    last = td.Kernels(f"Dense_{layers}", units=())
    chosen = kernels.find_kernels(params, (td.KERNELS, last))
    assert set(kernels.find_kernels(params, ".*")) - set(chosen) == {f"Dense_{layers}/kernel"}
    assert "no kernel is named" in td.describe(params)
    assert "excluded by td.Kernels" in td.describe(params, (td.KERNELS, last))


def test_a_module_of_several_kernels_with_the_name_of_a_last_layer_is_an_error():
    mlp = {"intermediate_layer": {"kernel": (8, 8)}, "output_layer": {"kernel": (8, 2)}}
    params = arrays({"classifier": {"mlp": mlp}, "encoder": {"kernel": (8, 8)}, "stem": {"conv": {"kernel": (8, 8)}}})
    with pytest.raises(td.UserError, match="'classifier' holds 2 kernels"):
        td.prune_mask(params, 0.5)
    chosen = kernels.find_kernels(params, (td.KERNELS, "intermediate_layer"))
    assert list(chosen) == ["classifier/mlp/intermediate_layer/kernel", "encoder/kernel"]


@pytest.mark.parametrize("chosen", [b"conv", (), None, re.compile("dense"), td.identity()])
def test_what_chooses_no_kernel_is_an_error(chosen):
    with pytest.raises(td.UserError, match="say kernels="):
        td.sparsity({"dense": {"kernel": jnp.ones((4, 4))}}, chosen)
