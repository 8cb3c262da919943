"""How the axes of real modules' leaves are read: Flax linen, Flax NNX, Equinox, Haiku."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import arrays
from flax import nnx

import td
from td import _tree, kernels
from td._kernel_axes import Kernel

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


@pytest.mark.parametrize("bias", [True, False])
def test_linen_attention_has_heads_times_head_dim_units_and_norms_and_biases_are_left_alone(bias):
    params = shapes_of(Block(bias), TOKENS)
    assert read(params) == BLOCK
    assert kernels.find_kernels(params, ".")[f"{ATTENTION}/query/kernel"].matrix_shape == (8, 8)
    assert kernels.find_kernels(params, ".")[f"{ATTENTION}/out/kernel"].matrix_shape == (8, 8)


@pytest.mark.parametrize("bias", [True, False])
def test_linen_scanned_layers_are_stacked(bias):
    scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    assert read(shapes_of(scanned(bias), TOKENS, None)) == SCANNED


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
        hidden = haiku.Conv2DTranspose(5, 3)(haiku.Conv2D(4, 3)(images))
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
        "conv2_d_transpose/w": ((), (2,)),
        "depthwise_conv2_d/w": ((), (3,)),
        "linear/w": ((), (1,)),
        **{f"multi_head_attention/{name}/w": ((), (1,)) for name in ("key", "linear", "query", "value")},
    }


def test_the_same_network_in_four_libraries_gets_the_same_masks():
    first, second = jax.random.normal(KEY, (6, 8)), jax.random.normal(jax.random.fold_in(KEY, 1), (8, 5))
    mlp = equinox.nn.MLP(6, 5, 8, 1, key=KEY)
    weights = lambda tree: (tree.layers[0].weight, tree.layers[1].weight)  # noqa: E731
    mlp = equinox.filter(equinox.tree_at(weights, mlp, (first.T, second.T)), equinox.is_inexact_array)
    linen = {"a": {"kernel": first, "bias": jnp.ones(8)}, "c": {"kernel": second, "bias": jnp.ones(5)}}
    hk = {"a": {"w": first, "b": jnp.ones(8)}, "c": {"w": second, "b": jnp.ones(5)}}
    state = nnx.State({"a": {"kernel": nnx.Param(first)}, "c": {"kernel": nnx.Param(second)}})
    for granularity in ("weight", "unit"):
        found = [list(masks_of(params, granularity).values()) for params in (linen, hk, state)]
        found.append([mask.T for mask in masks_of(mlp, granularity).values()])
        for masks in found[1:]:
            for mine, theirs in zip(found[0], masks, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def masks_of(params, granularity, rate=0.5, **options):
    mask = _tree.named_leaves(td.prune_mask(params, rate, granularity, kernels=".*", **options))
    return {path: mask[path] for path in kernels.find_kernels(params, ".*")}


@pytest.mark.parametrize(
    ("granularity", "scope"),
    [("weight", "unit"), ("weight", "layer"), ("weight", "global"), ("unit", "unit"), ("unit", "global")],
)
def test_scanned_layers_get_the_masks_of_the_same_layers_one_by_one(granularity, scope):
    generator, shapes = np.random.default_rng(0), shapes_of(Block(), TOKENS)
    normal = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    layers = [jax.tree.map(normal, shapes) for _ in range(3)]
    find = jax.jit(partial(masks_of, granularity=granularity, scope=scope))
    together = find(jax.tree.map(lambda *leaves: np.stack(leaves), *layers))
    alone = find({f"{i}": layer for i, layer in enumerate(layers)})
    for path, mask in together.items():
        np.testing.assert_array_equal(mask, np.stack([alone[f"{i}/{path}"] for i in range(3)]))


def test_a_scanned_layers_norms_stay_whole_under_every_method():
    params = {"norm": {"scale": jnp.ones((3, 8))}, "dense": {"kernel": jnp.ones((3, 8, 8)), "bias": jnp.ones((3, 8))}}

    @jax.jit
    def shown():
        transforms = {name: one.factory(kernels=".*") for name, one in td.masks.METHODS.items() if name != "none"}
        return {name: t.apply(params, t.init(KEY, params), key=KEY, step=1)[0] for name, t in transforms.items()}

    for name, seen in shown().items():
        assert bool((seen["norm"]["scale"] == 1).all() & (seen["dense"]["bias"] == 1).all()), name


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
    shapes = {"conv": {"kernel": (1, 4, 8, 16)}, "shortcut": {"kernel": (1, 1, 8, 16)}, "body": {"w": (3, 3, 8, 16)}}
    assert set(read(arrays(shapes)).values()) == {((), (3,))}
    norms = {"layers": {"norm": {"w": (12, 16)}, "RMSNorm_0": {"kernel": (12, 16)}}, "dense": {"kernel": (16, 16)}}
    assert list(read(arrays(norms))) == ["dense/kernel"]


def test_windows_of_factorised_convolutions_are_known_beside_norms_that_are_not_stacked():
    shapes = {"conv_1": {"kernel": (1, 7, 8, 16)}, "conv_3d": {"kernel": (3, 3, 3, 8, 16)}, "norm": {"scale": (16,)}}
    assert read(arrays(shapes)) == {"conv_1/kernel": ((), (3,)), "conv_3d/kernel": ((), (4,))}


def test_tables_of_top_level_names_are_no_kernels_and_an_unembedding_is_a_last_layer():
    tables = {"W_E": (50, 8), "W_pos": (12, 8), "w_emb": (50, 8), "w_pos": (12, 8)}
    params = arrays({**tables, "W_in": (8, 8), "W_U": (8, 50)})
    assert list(kernels.find_kernels(params)) == ["W_in"] and list(read(params)) == ["W_U", "W_in"]


@pytest.mark.parametrize(
    ("params", "view"),
    [
        ({"linear": {"weight": jnp.ones((8, 4)), "bias": jnp.ones(8)}}, Kernel((8, 4), (), (0,))),
        ({"linear": {"weight": jnp.ones((8, 4)), "bias": jnp.ones(4)}}, Kernel((8, 4), (), (-1,))),
    ],
)
def test_a_bias_tells_where_the_units_of_a_weight_are(params, view):
    assert kernels.find_kernels(params, "linear") == {"linear/weight": view}


def test_matrices_go_back_to_where_they_came_from():
    view = Kernel((2, 3, 4, 5), stacked=(1,), units=(0, 3))
    kernel = np.arange(120).reshape(2, 3, 4, 5)
    matrix = view.as_matrix(jnp.asarray(kernel))
    assert matrix.shape == (3, 4, 10) == view.matrix_shape
    assert matrix[1, 2, 7] == kernel[1, 1, 2, 2]
    np.testing.assert_array_equal(view.as_kernel(matrix), kernel)
