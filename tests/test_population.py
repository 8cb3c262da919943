"""A population trains each network as it would be trained alone."""

import itertools
import json
from contextlib import nullcontext

import jax
import numpy as np
import pytest
from conftest import final_state
from ml_collections import ConfigDict

import td
from td.io.files import read_json
from td.io.interrupt import Stopped
from td.io.log import read
from td.sweep import hyper
from td.sweep.launch import pairs
from td.train import population
from td.train.config import method
from td.train.devices import Execution
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


@pytest.fixture
def config(tiny_config):
    tiny_config.mask = method("targeted")
    tiny_config.duration, tiny_config.every.checkpoint, tiny_config.every.telemetry = "6 steps", "3 steps", "0 steps"
    return tiny_config


def assert_same_parameters(one, other, atol=1e-5):
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def variants(choices):
    """Settings of all combinations."""
    sweeps = [hyper.sweep(name, json.loads(f"[{values}]")) for name, values in pairs(choices, "sweep").items()]
    return hyper.product(sweeps)


def train_population(config, varied, folder, execution):
    """Train networks of these settings, in folders named by them; returns their results by that name."""
    configs = {
        folder / ",".join(f"{name}={value}" for name, value in settings.items()): settings for settings in varied
    }
    for path, settings in configs.items():
        configs[path] = ConfigDict(config.to_dict())
        configs[path].update_from_flattened_dict(settings)
    population.train_population(configs, execution)
    return {path.name: read_json(path / "result.json") for path in configs}


VARIED = variants(["seed=0,1", "mask.drop_rate=0.3,0.9", "optim.learning_rate=0.02,0.05"])


@pytest.mark.slow
def test_every_network_is_the_one_trained_alone(config, tmp_path, one_device):
    results = train_population(config, VARIED, tmp_path / "together", one_device)
    products = itertools.product((0, 1), (0.3, 0.9), (0.02, 0.05))
    names = [f"seed={s},mask.drop_rate={r:g},optim.learning_rate={rate:g}" for s, r, rate in products]
    assert list(results) == names
    with config.unlocked():
        config.seed, config.mask.drop_rate, config.optim.learning_rate = 1, 0.9, 0.05
    alone = train(config, tmp_path / "alone", one_device)
    assert_same_parameters(final_state(tmp_path / "alone"), final_state(tmp_path / "together" / names[7]))
    assert results[names[7]]["accuracy"] == pytest.approx(alone["accuracy"], abs=0.02)
    assert results[names[7]]["config"]["mask"]["drop_rate"] == 0.9
    mine, theirs = (
        [line["loss"] for line in read(folder) if "loss" in line and line["step"] == 6]
        for folder in (tmp_path / "together" / names[7], tmp_path / "alone")
    )
    assert len(mine) == 1 and np.isfinite(mine[0]) and np.isfinite(theirs[-1])


@pytest.mark.slow
@pytest.mark.parametrize("cut", [2, 4])  # at the second network's first checkpoint, at its last
def test_a_cut_population_goes_on_in_the_same_bits(config, tmp_path, one_device, monkeypatch, cut):
    varied = variants(["seed=0,1"])
    train_population(config, varied, tmp_path / "whole", one_device)

    class Cut(Exception):
        pass

    saves = []
    save = population.Checkpoints.save

    def failing(self, step, state):
        saves.append(step)
        if len(saves) == cut:
            raise Cut
        save(self, step, state)

    with monkeypatch.context() as patch:
        patch.setattr(population.Checkpoints, "save", failing)
        with pytest.raises(Cut):
            train_population(config, varied, tmp_path / "cut", one_device)
    assert saves == [3, 3, 6, 6][:cut]
    train_population(config, varied, tmp_path / "cut", one_device)
    for name in ("seed=0", "seed=1"):
        assert_same_parameters(final_state(tmp_path / "whole" / name), final_state(tmp_path / "cut" / name), atol=0)


@pytest.mark.parametrize("damaged", ["seed=0", "seed=1"])
def test_trap_one_damaged_checkpoint_takes_all_networks_back(config, tmp_path, one_device, damaged):
    varied = variants(["seed=0,1"])
    whole = train_population(config, varied, tmp_path, one_device)
    for name in ("seed=0", "seed=1"):
        (tmp_path / name / "result.json").unlink()
    newest = tmp_path / damaged / "checkpoints" / "6"
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-8] + b"damaged!")
    again = train_population(config, varied, tmp_path, one_device)
    assert [result["steps"] for result in again.values()] == [6, 6]
    assert [result["loss"] for result in again.values()] == [result["loss"] for result in whole.values()]


def test_sigterm_saves_all(config, tmp_path, one_device, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(population, "listening", lambda: nullcontext(lambda step: True))
        with pytest.raises(Stopped, match="stopped at step 1"):
            train_population(config, variants(["seed=0,1"]), tmp_path, one_device)
    assert [(tmp_path / f"seed={s}" / "checkpoints" / "1").is_dir() for s in (0, 1)] == [True, True]


@pytest.mark.slow
def test_networks_are_spread_over_devices(config, tmp_path, one_device):
    varied = variants(["seed=0,1"])
    train_population(config, varied, tmp_path / "one", one_device)
    train_population(config, varied, tmp_path / "two", Execution(jax.devices()[:2]))
    for name in ("seed=0", "seed=1"):
        assert_same_parameters(final_state(tmp_path / "one" / name), final_state(tmp_path / "two" / name))


def test_bad_input_is_told_and_nothing_is_written(config, tmp_path, one_device):
    with pytest.raises(td.UserError, match="out of range"):
        train_population(config, variants(["mask.drop_rate=1.5"]), tmp_path / "population", one_device)
    assert not (tmp_path / "population").exists()


def test_networks_that_devices_cannot_share_are_told_and_nothing_is_written(config, tmp_path):
    with pytest.raises(td.UserError, match="the number of networks cannot be sharded evenly over 2 devices"):
        train_population(config, variants(["seed=0,1,2"]), tmp_path / "population", Execution(jax.devices()[:2]))
    assert not (tmp_path / "population").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rng": "rbg"}, "rng='rbg' draws the same for all networks"),
        ({"mask": method("lottery")}, "train lotteries and fine-tune networks alone"),
        ({"start": {"workdir": "DIR", "prune_rate": 0.5}}, "train lotteries and fine-tune networks alone"),
    ],
)
def test_what_one_program_does_not_do_raises(config, tmp_path, one_device, settings, message):
    config.update(settings)
    with pytest.raises(td.UserError, match=message):
        train_population(config, variants(["seed=0,1"]), tmp_path / "population", one_device)
    assert not (tmp_path / "population").exists()


def test_a_network_that_blows_up_is_named(config, tmp_path, one_device):
    varied = variants(["optim.learning_rate=0.1,1e38"])
    with pytest.raises(td.UserError, match=r"is inf at step 1 in .*optim.learning_rate=1e\+38"):
        train_population(config, varied, tmp_path, one_device)
