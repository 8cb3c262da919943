"""The networks: published parameter counts, the constants of their norms, and what they must not know."""

import re
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td
from td import _tree, models
from td.kernels import select_kernels
from td.models.layers import lecun_normal

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
HE = {"widths": (16, 32, 64)}


def shapes(settings, num_classes=10, images=IMAGES):
    return jax.eval_shape(models.build(settings, num_classes).init, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"name": "resnet"}, 1_857_498),
        ({"name": "resnet", **HE}, 468_890),
        ({"name": "wide_resnet"}, 36_479_194),
        ({"name": "wide_resnet", "depth": 16, "width": 2}, 691_674),
        ({"name": "vgg"}, 14_710_464 + 2 * 4_224 + 512 * 4096 + 4096**2 + 4 * 4096 + 4096 * 10 + 10),
        ({"name": "large_resnet", "depth": 18, "small_images": True}, 11_173_962),
        ({"name": "mlp"}, 3072 * 10 + 10 + 10 * 10 + 10),
    ],
)
def test_parameter_counts(settings, parameters):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(settings)["params"])) == parameters


@pytest.mark.parametrize(
    ("depth", "parameters"), [(18, 11_689_512), (26, 15_995_176), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)]
)
def test_parameter_counts_of_imagenet_networks(depth, parameters):
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = shapes({"name": "large_resnet", "depth": depth}, 1000, images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "wide_resnet", "depth": 27}, "6 n \\+ 4"),
        ({"name": "large_resnet", "depth": 102}, "18, 26, 34, 50, 101"),
    ],
)
def test_depths_that_do_not_exist_are_told(settings, message):
    with pytest.raises(td.UserError, match=message):
        models.build(settings, 10)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "wide_resnet", "depth": 10, "width": 1},
        {"name": "vgg", "stages": ((4, 4), (8,)), "hidden_units": (8,)},
        {"name": "large_resnet", "depth": 18, "small_images": True},
    ],
)
def test_every_network_has_one_stem_and_one_logits_and_a_recalibration(settings):
    model = models.build(settings, 10)
    variables = shapes(settings)
    paths = _tree.paths(variables["params"])
    assert sum(path.startswith("stem/") for path in paths) == 1
    assert sum(path.startswith("logits/") for path in paths) == 2
    again = model.clone(batch_norm_momentum=0.0)
    _, updated = jax.eval_shape(lambda v, x: again.apply(v, x, train=True, mutable=["batch_stats"]), variables, IMAGES)
    assert jax.tree.structure(updated["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


@pytest.mark.slow
def test_dropout_inside_units_is_for_training_only_and_follows_its_rng():
    model = models.build({"name": "wide_resnet", "depth": 10, "width": 1, "dropout_rate": 0.5}, 10)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    @jax.jit
    def train(key):
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    first, same, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    score = jax.jit(lambda key: model.apply(variables, images, rngs={"dropout": key}))
    assert np.array_equal(score(jax.random.key(0)), score(jax.random.key(1)))


def test_prunable_weights_and_units_of_the_papers_resnet32():
    kernels = select_kernels(shapes({"name": "resnet"})["params"])
    assert sum(kernel.size for kernel in kernels.values()) == 1_849_344
    assert sum(kernel.shape[-1] for kernel in kernels.values()) == 2_464
    assert sum("shortcut" in path for path in kernels) == 3


def test_stem_and_initialiser():
    model = models.build({"name": "resnet", **HE, "stage_sizes": (1, 1, 1)}, 10)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    assert variables["params"]["stem"]["kernel"].shape == (7, 7, 3, 16)
    kernel = variables["params"]["stage3_block1"]["conv2"]["kernel"]
    assert float(kernel.std()) == pytest.approx((9 * 64) ** -0.5, rel=0.02)


def test_kernels_are_drawn_as_flax_draws_them():
    ours, flax = (draw(jax.random.key(0), (3, 3, 2, 4)) for draw in (lecun_normal, nn.initializers.lecun_normal()))
    assert np.array_equal(ours, flax)


def test_batch_norm_constants():
    model = models.build({"name": "resnet", **HE, "stage_sizes": (1, 1, 1)}, 10)
    images = 3.0 + 2.0 * jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    _, updated = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))(variables)
    stem = nn.Conv(16, (7, 7), padding=3, use_bias=False).apply({"params": variables["params"]["stem"]}, images)
    mean = updated["batch_stats"]["stage1_block1"]["norm1"]["mean"]
    np.testing.assert_allclose(mean, 0.003 * stem.mean(axis=(0, 1, 2)), rtol=2e-3, atol=1e-6)
    variables["batch_stats"] = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    look = lambda v: model.apply(v, images, capture_intermediates=lambda module, _: module.name == "norm1")  # noqa: E731
    _, seen = jax.jit(look)(variables)
    output = seen["intermediates"]["stage1_block1"]["norm1"]["__call__"][0]
    # Mean 0, variance 0, scale 1 and bias 0 leave nothing but the division by sqrt(epsilon).
    np.testing.assert_allclose(output, stem / np.sqrt(1e-3), rtol=1e-4)


def test_trap_a_zeroed_unit_still_emits_a_constant_through_its_norm():
    model = models.build({"name": "resnet", "widths": (4, 4, 4), "stage_sizes": (1, 1, 1), "stem_width": 4}, 3)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    variables, apply = jax.jit(model.init)(jax.random.key(0), images), jax.jit(model.apply)
    unit = variables["params"]["stage1_block1"]
    unit["conv1"]["kernel"] = unit["conv1"]["kernel"].at[..., 0].set(0.0)
    zeroed = apply(variables, images)
    unit["norm2"]["bias"] = unit["norm2"]["bias"].at[0].set(1.0)
    assert not np.allclose(zeroed, apply(variables, images))


def test_shapes_halve_in_every_stage_after_the_first():
    model = models.build({"name": "resnet", **HE, "stage_sizes": (1, 1, 1)}, 10)
    _, state = jax.eval_shape(
        lambda key, x: model.init_with_output(key, x, capture_intermediates=True), jax.random.key(0), IMAGES
    )
    sides = [state["intermediates"][f"stage{i}_block1"]["__call__"][0].shape[1] for i in (1, 2, 3)]
    assert sides == [32, 16, 8]


def test_bfloat16_computes_in_half_and_stores_in_full():
    settings = {"name": "resnet", **HE, "stage_sizes": (1, 1, 1), "dtype": "bfloat16"}
    model = models.build(settings, 10)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert jax.eval_shape(model.apply, variables, IMAGES).dtype == jnp.float32


@pytest.mark.parametrize("settings", [{"name": "rsnet"}, {"name": "resnet", "width": 3}])
def test_bad_names_are_told(settings):
    with pytest.raises(td.UserError, match=r"did you mean 'resnet'|did you mean 'widths'"):
        models.build(settings, 10)


def test_models_and_data_know_nothing_of_masks():
    package = Path(td.__file__).parent
    words = re.compile(r"mask|prun|sparsi|drop_rate|target_proportion", re.IGNORECASE)
    files = [*package.glob("models/*.py"), *package.glob("data/*.py")]
    assert len(files) > 6 and not [path.name for path in files if words.search(path.read_text())]


SMALL = {
    "resnet": {"widths": (4, 8), "stage_sizes": (1, 1)},
    "wide_resnet": {"depth": 10, "width": 1},
    "vgg": {"stages": ((4,), (8,)), "hidden_units": (8,)},
    "large_resnet": {"depth": 10, "width": 4, "small_images": True},
}


@pytest.mark.parametrize("name", [*SMALL, "transformer"])
def test_every_network_computes_in_bfloat16_and_keeps_float32(name):
    settings = {"name": name, "dtype": "bfloat16", **SMALL.get(name, {"layers": 1, "width": 8, "heads": 2})}
    model, tokens = models.build(settings, 10), jax.ShapeDtypeStruct((2, 8), jnp.int32)
    inputs = (tokens, tokens) if name == "transformer" else (jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),)
    call = partial(model.init_with_output, capture_intermediates=True)
    logits, variables = jax.eval_shape(call, jax.random.key(0), *inputs)
    inner = [leaf.dtype for leaf in jax.tree.leaves(variables.pop("intermediates")) if leaf.ndim > 1]
    assert inner.count(jnp.bfloat16) > len(inner) / 2
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float32")}


def test_trap_logits_of_many_tokens_are_not_rounded_to_bfloat16():
    model = models.build({"name": "transformer", "dtype": "bfloat16", "layers": 1, "width": 8, "heads": 2}, 100)
    tokens = jnp.ones((1, 4), jnp.int32)
    logits, _ = model.init_with_output(jax.random.key(0), tokens, tokens)
    assert (logits != logits.astype(jnp.bfloat16)).any()
