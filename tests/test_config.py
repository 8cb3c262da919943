"""Every config with every method, instantiated by shape; the papers' numbers; typed arguments."""

import runpy
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, sized

import td
from td import masks, models
from td.criteria import OF_KERNELS
from td.io.run_folder import flatten
from td.train.config import TRACED, expand_percent, method, parse_arg, resolve, to_steps
from td.train.experiment import in_steps, kernels_of
from td.train.optimizer import DURATIONS, make_learning_rate, make_optimizer

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
IMAGE_SHAPES = {"digits": (2, 8, 8, 1), "mnist": (2, 28, 28, 1), "cifar10": (2, 32, 32, 3), "cifar100": (2, 32, 32, 3)}
IMAGE_SHAPES["imagenet2012"] = (2, 224, 224, 3)


NAMED = {"mnist_mlp": (td.KERNELS, {"hidden/kernel"}), "wmt14_transformer": (".*", set())}
"""Patterns that choose the kernels by name, and what they choose besides those that the trace does."""


def scales_of(card):
    return [*runpy.run_path(str(ROOT / "configs" / f"{card}.py"))["SCALES"]]


def model_inputs(settings):
    if "vocabulary" in settings:
        return (jax.ShapeDtypeStruct((2, 16), jnp.int32),) * 2
    return (jax.ShapeDtypeStruct(IMAGE_SHAPES[settings.name], jnp.float32),)


@cache
def shapes(model, inputs):
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]


SMOKE_SIZE = [
    *(
        (name, mask, "unit" if "wrn" in name or "vgg" in name else "weight", ",scale=smoke")
        for name in CONFIGS
        for mask in masks.METHODS
    ),
    *((name, "none", "unit", "") for name in CONFIGS),
]
FULL_SIZE = [
    *((name, "targeted", "unit", "") for name in CONFIGS),
    *(("cifar10_resnet32", mask, granularity, "") for mask in masks.METHODS for granularity in OF_KERNELS),
    *((name, "ramping", "unit", ",scale=short") for name in CONFIGS if name.startswith("cifar") and "18" not in name),
]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trace_chooses_the_kernels_and_axes_that_names_do(smoke_config, name):
    config = smoke_config(name, "")
    model, inputs = models.build(config.model.to_dict(), num_classes=10), model_inputs(config.data)
    config.kernels = TRACED
    params, structure = shapes(model, inputs), kernels_of(config, 10, inputs)
    pattern, more = NAMED.get(name, (td.KERNELS, set()))
    by_name = td.kernels.find_kernels(params, pattern)
    assert {path: view.order for path, view in structure.kernels.items()} == {
        path: view.order for path, view in by_name.items() if path not in more
    }
    assert more <= by_name.keys() and not structure.notes


@pytest.mark.parametrize(
    ("name", "mask", "granularity", "size"),
    [*SMOKE_SIZE, *(pytest.param(*case, marks=pytest.mark.slow) for case in FULL_SIZE)],
)
def test_every_config_with_every_method(smoke_config, name, mask, granularity, size):
    config = expand_percent(smoke_config(name, f"mask={mask},granularity={granularity}{size}"))
    settings = config.to_dict()
    examples, batch_size = 50_000, config.data.batch_size
    model = models.build(settings["model"], num_classes=10)
    mask_settings, optim_settings = in_steps(config, sized(examples))
    kernels = kernels_of(config, 10, model_inputs(config.data))
    transform = masks.build(mask_settings, kernels=kernels)
    steps = to_steps(config.duration, examples, batch_size)
    optimizer = make_optimizer(optim_settings, steps)
    key = jax.random.key(0)
    params = shapes(model, model_inputs(config.data))
    mask_vars = jax.eval_shape(transform.init, key, params)
    jax.eval_shape(lambda params, mask_vars: transform.apply(params, mask_vars, key=key, step=0), params, mask_vars)
    jax.eval_shape(optimizer.init, (params, mask_vars.gates))
    assert set(resolve(settings["every"], settings["every"], examples, batch_size)) == {
        "log",
        "checkpoint",
        "evaluation",
        "telemetry",
    }
    assert config.to_json()


def test_resnet32_is_the_papers(smoke_config):
    config = smoke_config("cifar10_resnet32", "mask=targeted,granularity=unit")
    assert to_steps(config.duration, 50_000, config.data.batch_size) == 100_000
    rate = make_learning_rate(resolve(config.optim.to_dict(), DURATIONS, 50_000, 128), 100_000)
    rates = [float(rate(step)) for step in (0, 39_999, 40_000, 60_000, 80_000)]
    np.testing.assert_allclose(rates, [0.4, 0.4, 0.04, 0.004, 0.0004], rtol=1e-5)
    assert config.mask.granularity == "unit" and config.optim.l2 == 2e-4 and config.optim.clip_norm == 1.0
    assert models.build(config.model.to_dict(), 10) == models.ResNet(num_classes=10)


PAPER = {
    ("targeted", "weight"): {"drop_rate": 0.66, "target_proportion": 0.75},
    ("targeted", "unit"): {"drop_rate": 0.5, "target_proportion": 0.5},
    ("ramping", "weight"): {"drop_rate": 0.99, "target_proportion": 0.99, "stage": "49 epochs"},
    ("ramping", "unit"): {"drop_rate": 0.99, "target_proportion": 0.90, "stage": "49 epochs"},
    ("xtreme", "weight"): {"survivors": 3, "drop_rate": 0.99, "stage": "49 epochs"},
    ("dropout", "weight"): {"drop_rate": 0.25},
    ("dropout", "unit"): {"drop_rate": 0.25},
    ("l1", "weight"): {"cost": 0.1, "reduction": "mean"},
    ("l1", "unit"): {"cost": 0.01, "reduction": "mean"},
    ("l0", "weight"): {"cost": 0.1, "initial_drop_rate": 0.001, "examples": 0},
    ("l0", "unit"): {"cost": 0.01, "initial_drop_rate": 0.001, "examples": 0},
    ("variational", "weight"): {"cost": 0.01, "warmup": "50000 steps", "examples": 0, "threshold": 3.0},
    ("smallify", "weight"): {"cost": 1e-5, "decay": 0.9, "threshold": 0.5},
    ("smallify", "unit"): {"cost": 1e-4, "decay": 0.9, "threshold": 0.5},
}


def test_the_cards_networks_and_schedules(smoke_config):
    wrn, vgg = smoke_config("cifar10_wrn", ""), smoke_config("cifar100_vgg16", "")
    rate = make_learning_rate(resolve(wrn.optim.to_dict(), DURATIONS, 50_000, 128), to_steps(wrn.duration, 50_000, 128))
    rates = [float(rate(to_steps(f"{epoch} epochs", 50_000, 128))) for epoch in (0, 59, 61, 121, 161)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.02, 0.004, 0.0008], rtol=1e-5)
    assert wrn.optim.nesterov and wrn.optim.l2 == 5e-4
    assert models.build(wrn.model.to_dict(), 10) == models.wide_resnet(10)
    assert models.build(vgg.model.to_dict(), 100) == models.VGG(100)
    assert (vgg.optim.name, vgg.optim.b1, vgg.optim.b2, vgg.data.batch_size) == ("adam", 0.85, 0.997, 64)


@pytest.mark.parametrize(("mask", "granularity"), PAPER)
def test_methods_come_with_the_papers_numbers(smoke_config, mask, granularity):
    config = expand_percent(smoke_config("cifar10_resnet32", f"mask={mask},granularity={granularity}"))
    assert PAPER[mask, granularity].items() <= config.mask.to_dict().items()
    assert config.optim.l2 == (0.0 if mask == "variational" else 2e-4)


@pytest.mark.parametrize("card", CONFIGS)
def test_schedules_follow_the_duration_of_a_smaller_run(smoke_config, card):
    for scale in set(scales_of(card)) - {"paper", "smoke"}:
        for mask in (name for name, record in masks.METHODS.items() if record.durations):
            config = smoke_config(card, f"mask={mask},scale={scale}")
            config.duration = "2000 steps"
            settings = expand_percent(config).mask
            steps = {name: to_steps(settings[name], 50_000, 128) for name in masks.find(mask).durations}
            assert max(steps.values()) < 2000, (scale, mask)


def test_very_short_runs_have_durations_that_are_understood(smoke_config):
    config = smoke_config("cifar10_resnet32", "mask=gradual,scale=cpu")
    config.duration = "0.004 epochs"
    steps = resolve(expand_percent(config).mask.to_dict(), ("begin", "end", "interval"), 50_000, 128)
    assert (steps["begin"], steps["end"], steps["interval"]) == (0, 1, 0)


STAGES = {
    "cifar10_resnet18": 49 / 256,
    "cifar10_resnet32": 49 / 256,
    "cifar10_wrn": 49 / 200,
    "cifar100_vgg16": 20_000 / 200_000,
    "imagenet_resnet": 24_000 / 120_000,
    "mnist_mlp": 50 / 200,
    "wmt14_transformer": 20_000 / 100_000,
}
"""The share of training that one of a ramp's two stages takes in the paper."""


def share_of_a_stage(config):
    config = expand_percent(config)
    (stage, unit), (whole, of) = config.mask.stage.split(), config.duration.split()
    assert unit == of
    return float(stage) / float(whole)


@pytest.mark.parametrize("card", STAGES)
def test_trap_ramps_keep_the_papers_proportion_at_every_scale(smoke_config, card):
    """Two stages of 40 % would leave a fifth of a run at the final shares."""
    for scale in set(scales_of(card)) - {"smoke"}:
        config = smoke_config(card, f"mask=ramping,scale={scale}")
        assert share_of_a_stage(config) == pytest.approx(STAGES[card], abs=1e-6), scale
        config.duration = "7 epochs"
        assert share_of_a_stage(config) == pytest.approx(STAGES[card], abs=1e-6), scale


def test_arguments_are_typed():
    parsed = parse_arg("mask=dropout,count=3,fast", mask="none", count=1, fast=False)
    assert parsed.to_dict() == {"mask": "dropout", "count": 3, "fast": True}
    with pytest.raises(td.UserError, match="count='x' is not of type int"):
        parse_arg("count=x", count=1)
    with pytest.raises(td.UserError, match="did you mean 'mask'"):
        parse_arg("msk=1", mask="none")


def test_a_scale_changes_defaults_and_what_is_given_stays():
    scales = {"paper": {}, "cpu": {"depth": 10, "width": 1, "model.bias": True}}
    defaults = {"depth": 28, "width": 10}
    assert parse_arg("depth=16,scale=cpu", scales, **defaults).to_dict() == {"depth": 16, "width": 1, "scale": "cpu"}
    assert parse_arg("cpu", scales, **defaults) == parse_arg("scale=cpu", scales, **defaults)
    assert parse_arg("", scales, **defaults).scale == "paper"
    with pytest.raises(td.UserError, match="unknown scale 'cpv': did you mean 'cpu'"):
        parse_arg("scale=cpv", scales, **defaults)


@pytest.mark.parametrize("card", CONFIGS)
def test_scales_change_arguments_and_settings_that_there_are(card):
    page = runpy.run_path(str(ROOT / "configs" / f"{card}.py"))
    known = set(flatten(page["get_config"]().to_dict())) | {"data", "depth", "width", "size"}
    assert all(set(changes) <= known for changes in page["SCALES"].values())


def test_methods_refuse_arguments_they_do_not_take():
    with pytest.raises(td.UserError, match="takes no 'drop_rat': did you mean 'drop_rate'"):
        masks.build({"name": "targeted", "drop_rat": 0.5})
    with pytest.raises(td.UserError, match="did you mean 'targeted'"):
        method("targetd")


def test_config_docstrings_have_the_cost_and_a_command():
    for name in CONFIGS:
        text = (Path(ROOT) / "configs" / f"{name}.py").read_text()
        assert "Cost:" in text and f"td-train --config={name}:" in text
