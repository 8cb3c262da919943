"""What names and shapes leave open is asked for, and what chooses no kernel is refused."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from conftest import arrays

import td
from td.kernels import find_kernels

UNKNOWN = {
    "a name of somebody's own": ({"mixer": {"A_log": (16, 8)}}, "'A_log' is not a name"),
    "a tuple": ({"hidden": ((8, 4), (4,))}, "'0' is not a name"),
    "layers stacked with one-dimensional convolutions": (
        {"conv": {"kernel": (6, 5, 16, 16)}, "norm": {"scale": (16,)}},
        "may be stacked layers",
    ),
    "layers stacked with two-dimensional convolutions": (
        {"conv": {"kernel": (6, 3, 3, 16, 16)}, "norm": {"scale": (16,)}},
        "may be stacked layers",
    ),
    "two heads in Gemma": ({"attn": {"kv_einsum": {"w": (2, 2, 16, 8)}}, "norm": {"scale": (16,)}}, "may be stacked"),
    "three heads in Gemma": ({"attn": {"qkv_einsum": {"w": (3, 3, 16, 8)}}}, "may be stacked layers"),
    "a square kernel among others with their units first": (
        {"mlp": {"kernel": (8, 4), "bias": (8,)}, "out": {"kernel": (8, 8), "bias": (8,)}},
        "have their units first",
    ),
    "a kernel without bias among others with their units first": (
        {"mlp": {"kernel": (8, 4), "bias": (8,)}, "out": {"kernel": (8, 4)}},
        "have their units first",
    ),
    "units first, by biases of their own": ({"w1": (8, 4), "b1": (8,), "w2": (8, 8), "b2": (8,)}, "mask 2 leaves"),
    "stacked queries beside unstacked outputs": ({"layers": {"query": {"kernel": (6, 16, 16)}}}, "may be stacked"),
    "a convolution or stacked layers": ({"body": {"kernel": (3, 8, 8)}}, "may be stacked layers, fan-in or units"),
    "heads as many as layers": ({"dense": {"kernel": (4, 4, 6), "bias": (4, 6)}}, "may be stacked layers"),
    "a weight of either order": ({"linear": {"weight": (8, 4)}}, "units first or last"),
    "a square weight": ({"linear": {"weight": (8, 8), "bias": (8,)}}, "units first or last"),
    "attention without biases, in Gemma": ({"qkv_einsum": {"w": (3, 4, 16, 8)}}, "may be stacked layers"),
    "heads without a bias": ({"qkv": {"kernel": (32, 3, 4, 8)}}, "may be stacked layers"),
    "experts of layers": ({"moe": {"w_in": (2, 4, 16, 32)}, "norm": {"scale": (16,)}}, "may be stacked layers"),
    "layers stacked along the second axis": (
        {"dense": {"kernel": (16, 3, 16)}, "norm": {"scale": (16, 3)}},
        "may be stacked layers",
    ),
    "a table of tokens": ({"token_embedding": {"w": (100, 16)}}, "named as an embedding"),
    "a table of positions": ({"pos_emb": {"kernel": (12, 16)}}, "named as an embedding"),
    "a transposed kernel": ({"up": {"kernel": (3, 3, 5, 4), "bias": (5,)}}, "may be stacked layers"),
}


def lines_of(error, key="kernels="):
    """The choice that an error proposes, as Python."""
    return str(error.value).partition(key)[2]


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_cannot_be_known_is_an_error_that_shows_the_lines_to_write(case):
    shapes, why = UNKNOWN[case]
    params = {**arrays(shapes), "logits": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}
    with pytest.raises(td.UserError, match="cannot tell") as caught:
        td.prune_mask(params, 0.5)
    assert why in str(caught.value)
    mask = td.prune_mask(params, 0.5, kernels=eval(lines_of(caught), {"td": td}))
    assert not all(bool(leaf.all()) for leaf in jax.tree.leaves(mask))
    alone = eval(re.sub(r"units=\(.*?\)\)", "units=())", lines_of(caught)), {"td": td})
    with pytest.raises(td.UserError, match="matches no kernel"):
        td.prune_mask(params, 0.5, kernels=alone)
    assert "excluded by td.Kernels" in td.describe(params, alone)


def gpt2(layers):
    """Kernels `[out, in]`, as Flax GPT-2 of Hugging Face has them."""
    dense = lambda units, fan_in: {"kernel": (units, fan_in), "bias": (units,)}  # noqa: E731
    attention, mlp = {"c_attn": dense(24, 8), "c_proj": dense(8, 8)}, {"c_fc": dense(32, 8), "c_proj": dense(8, 32)}
    norms = {f"ln_{i}": {"scale": (8,), "bias": (8,)} for i in (1, 2)}
    blocks = {str(i): {"attn": attention, "mlp": mlp, **norms} for i in range(layers)}
    return arrays({"h": blocks, "wte": {"embedding": (50, 8)}, "wpe": {"embedding": (12, 8)}})


def test_a_deep_network_is_asked_about_once_with_the_axes_of_its_biases():
    params = gpt2(12)
    with pytest.raises(td.UserError, match="how to mask 48 leaves") as caught:
        td.prune_mask(params, 0.5, "unit")
    chosen = eval(lines_of(caught), {"td": td})
    assert [one.pattern for one in chosen[1:]] == [
        rf"^h/\d+/{name}/kernel$" for name in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj")
    ]
    found = find_kernels(params, chosen[1:])
    assert {path.partition("11/")[2]: view.matrix_shape for path, view in found.items() if path.startswith("h/11")} == {
        "attn/c_attn/kernel": (8, 24),
        "attn/c_proj/kernel": (8, 8),
        "mlp/c_fc/kernel": (8, 32),
        "mlp/c_proj/kernel": (32, 8),
    }


def test_known_kernels_of_the_same_names_are_not_in_the_lines_to_write():
    params = arrays({"0": {"weight": (4, 4)}, "1": {"weight": (4, 4)}, "2": {"weight": (8, 4), "bias": (8,)}})
    with pytest.raises(td.UserError, match="how to mask 2 leaves") as caught:
        td.prune_mask(params, 0.5)
    assert [one.pattern for one in eval(lines_of(caught), {"td": td})[1:]] == ["^0/weight$", "^1/weight$"]


class Plain(nn.Module):
    """A classifier with the names that Flax gives by itself."""

    layers: int = 2

    @nn.compact
    def __call__(self, inputs):
        for _ in range(self.layers):
            inputs = nn.relu(nn.Dense(16)(inputs))
        return nn.Dense(10)(inputs)


@pytest.mark.parametrize("layers", [1, 2, 11])
def test_a_network_whose_names_leave_out_no_layer_is_asked_for_the_last_one(layers):
    params = jax.eval_shape(Plain(layers).init, jax.random.key(0), jnp.ones((1, 8)))["params"]
    with pytest.raises(td.UserError, match="no kernel is named as a first or last layer") as caught:
        td.targeted("unit").apply(params, td.MaskVars(), key=jax.random.key(0), step=0)
    chosen = eval(lines_of(caught).partition(" if ")[0], {"td": td})
    assert set(find_kernels(params, ".*")) - set(find_kernels(params, chosen)) == {f"Dense_{layers}/kernel"}
    assert "no kernel is named" in td.describe(params) and "no kernel is named" not in td.describe(params, chosen)
    aside = find_kernels(params, (td.KERNELS, td.Kernels(f"Dense_{layers}", units=())))
    assert set(aside) == set(find_kernels(params, chosen))


def test_other_patterns_stay_in_the_line_to_write():
    params = arrays({"experts": (2, 4, 4), "out": {"kernel": (4, 2)}})
    with pytest.raises(td.UserError, match="no kernel is named") as caught:
        td.prune_mask(params, 0.5, kernels=(td.KERNELS, td.Kernels("experts", stacked=(0,))))
    chosen = eval(lines_of(caught).partition(" if ")[0], {"td": td})
    assert list(find_kernels(params, chosen)) == ["experts"]


def test_a_module_of_several_kernels_with_the_name_of_a_last_layer_is_asked_about():
    mlp = {"intermediate_layer": {"kernel": (8, 8)}, "output_layer": {"kernel": (8, 2)}}
    params = arrays({"classifier": {"mlp": mlp}, "encoder": {"kernel": (8, 8)}, "stem": {"conv": {"kernel": (8, 8)}}})
    with pytest.raises(td.UserError, match="'classifier' holds 2 kernels") as caught:
        td.prune_mask(params, 0.5)
    inner, none = (eval(part.partition(" to mask")[0]) for part in str(caught.value).split("kernels=")[1:])
    assert list(find_kernels(params, inner)) == ["classifier/mlp/intermediate_layer/kernel", "encoder/kernel"]
    assert list(find_kernels(params, none)) == ["encoder/kernel"]
    assert list(find_kernels(params, (td.KERNELS, "intermediate_layer"))) == list(find_kernels(params, inner))


@pytest.mark.parametrize("chosen", [[("conv",)], [b"conv"], (), None, re.compile("dense"), td.identity()])
def test_what_chooses_no_kernel_is_refused(chosen):
    with pytest.raises(td.UserError, match="say kernels="):
        td.sparsity({"dense": {"kernel": jnp.ones((4, 4))}}, chosen)
