"""The smoke version of a config trains and goes on where it was cut, in the same bits."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from conftest import final_state, load_config, trees_equal

from td import models
from td.train.loop import train


@pytest.mark.parametrize(
    "name", ["mnist_mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("digits_resnet", "wmt14_transformer"))]
)
def test_a_config_trains_and_resumes(name, tmp_path, one_device):
    """One of every family of networks and data; test_tables.py trains and prunes all the others."""
    config = load_config(name, "mask=targeted,smoke")
    whole = train(config, tmp_path / "whole", one_device)
    train(config, tmp_path / "cut", one_device, until="4 steps")
    assert train(config, tmp_path / "cut", one_device)["loss"] == whole["loss"]
    assert trees_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))


IMAGES = {
    "resnet": {"widths": (4, 8), "stage_sizes": (1, 1)},
    "wide_resnet": {"depth": 10, "width": 1},
    "vgg": {"stages": ((4,), (8,)), "hidden_units": (8,)},
    "large_resnet": {"depth": 10, "width": 4, "small_images": True},
}


@pytest.mark.parametrize("name", [*IMAGES, "transformer"])
def test_every_network_computes_in_bfloat16_and_keeps_float32(name):
    settings = {"name": name, "dtype": "bfloat16", **IMAGES.get(name, {"layers": 1, "width": 8, "heads": 2})}
    model, tokens = models.build(settings, 10), jax.ShapeDtypeStruct((2, 8), jnp.int32)
    inputs = (tokens, tokens) if name == "transformer" else (jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),)
    call = partial(model.init_with_output, capture_intermediates=True)
    logits, variables = jax.eval_shape(call, jax.random.key(0), *inputs)
    inner = [leaf.dtype for leaf in jax.tree.leaves(variables.pop("intermediates")) if leaf.ndim > 1]
    assert inner.count(jnp.bfloat16) > len(inner) / 2
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float32")}
