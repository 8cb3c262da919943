"""What names and shapes leave open is asked for, and what chooses no kernel is refused."""

import re

import jax
import jax.numpy as jnp
import pytest
from conftest import arrays

import td

UNKNOWN = {
    "a name of somebody's own": ({"mixer": {"A_log": (16, 8)}}, "'A_log' is not a name"),
    "a tuple": ({"hidden": ((8, 4), (4,))}, "'0' is not a name"),
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


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_cannot_be_known_is_an_error_that_shows_the_line_to_write(case):
    shapes, why = UNKNOWN[case]
    params = arrays(shapes)
    with pytest.raises(td.UserError, match=f"cannot tell whether .*{why}") as caught:
        td.prune_mask(params, 0.5)
    line = str(caught.value).partition("say kernels=")[2].partition(" with its own axes")[0]
    mask = td.prune_mask(params, 0.5, kernels=eval(line, {"td": td}))
    assert not all(bool(leaf.all()) for leaf in jax.tree.leaves(mask))
    alone = eval(line.replace("(-1,)", "()"), {"td": td})
    with pytest.raises(td.UserError, match="matches no kernel"):
        td.prune_mask(params, 0.5, kernels=alone)
    assert "left alone as given" in td.describe(params, alone)


@pytest.mark.parametrize("chosen", [[("conv",)], [b"conv"], (), None, re.compile("dense"), td.targeted()])
def test_what_chooses_no_kernel_is_refused(chosen):
    with pytest.raises(td.UserError, match="say kernels="):
        td.sparsity({"dense": {"kernel": jnp.ones((4, 4))}}, chosen)
