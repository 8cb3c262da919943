"""Path names of leaves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import td
from td import _tree
from td.kernels import kernel_keys

equinox = pytest.importorskip("equinox")


def test_leaves_are_named_by_their_keys_and_replaced_by_name():
    params = {"block": ({"kernel": 1.0}, None), "bias": [2.0]}
    assert _tree.named_leaves(params) == {"bias/0": 2.0, "block/0/kernel": 1.0}
    assert _tree.replace_leaves(params, {"bias/0": 3.0}) == {**params, "bias": [3.0]}


def test_kernels_of_other_paths_and_steps_have_other_keys():
    keys = [
        *kernel_keys(jax.random.key(0), 1, "ab").values(),
        *kernel_keys(jax.random.key(0), 2, "a").values(),
    ]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3


def test_an_equal_name_for_two_leaves_is_told():
    params = {"a/w": jnp.ones((2, 2)), "a": {"w": jnp.ones((2, 2))}}
    with pytest.raises(td.UserError, match="2 leaves of the tree are called 'a/w'"):
        td.prune_mask(params, 0.5)


@pytest.mark.parametrize("use", ["init", "apply", "prune_mask", "compact"])
@pytest.mark.parametrize(
    ("make", "recipe"),
    [
        (lambda: nnx.Linear(8, 2, rngs=nnx.Rngs(0)), "nnx.split"),
        (lambda: {"net": nnx.Linear(8, 2, rngs=nnx.Rngs(0))}, "nnx.split"),
        (lambda: nn.Dense(3), "model.init"),
        (lambda: equinox.nn.MLP(8, 2, 4, 1, key=jax.random.key(0)), "eqx.partition"),
    ],
)
def test_a_whole_module_is_refused_with_the_lines_that_give_its_parameters(make, recipe, use):
    model, transform = make(), td.masks.l0()
    with pytest.raises(td.UserError, match=recipe):
        if use == "init":
            transform.init(jax.random.key(0), model)
        elif use == "apply":
            td.targeted().apply(model, td.MaskVars(), key=jax.random.key(0), step=0)
        elif use == "prune_mask":
            td.prune_mask(model, 0.5)
        else:
            td.compact(lambda model, inputs: model(inputs), model, jnp.ones((1, 8)))
