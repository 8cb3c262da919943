"""What the log says of a method's targets, and what a prune curve says of what it empties."""

import logging

import jax.numpy as jnp
import pytest

from td import prune
from td.curve import prune_curve
from td.data import load
from td.experiment import build, load_trained
from td.metrics import read
from td.telemetry import make_telemetry
from td.train import train


def with_kernel(run, kernel):
    return run.state._replace(params={**run.state.params, "hidden": {**run.state.params["hidden"], "kernel": kernel}})


def test_the_share_that_changes_and_the_magnitudes_by_hand(smoke_config):
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    config.mask.target_proportion = 0.5
    run = build(config, load(config.data.to_dict()))
    shape = run.state.params["hidden"]["kernel"].shape
    rising = jnp.broadcast_to(jnp.arange(1.0, shape[0] + 1)[:, None], shape)
    watched = make_telemetry(run.experiment, config.mask.to_dict(), config.granularity)
    before = watched.targets(with_kernel(run, rising))
    assert bool((before["hidden/kernel"] == (rising <= shape[0] / 2)).all())
    same = watched.watch(before, with_kernel(run, rising))
    assert same["targets/changed"] == 0
    assert float(same["targets/inside_50"]) == pytest.approx(shape[0] / 4 + 0.5)
    assert float(same["targets/outside_50"]) == pytest.approx(shape[0] * 3 / 4 + 0.5)
    # The smallest weight of the first of ten units becomes its largest: one of 320 targets is another.
    moved = rising.at[0, 0].set(1000.0)
    assert float(watched.watch(before, with_kernel(run, moved))["targets/changed"]) == pytest.approx(
        1 / before["hidden/kernel"].sum()
    )


def test_a_run_logs_it_when_asked_and_trains_the_same(smoke_config, tmp_path, one_device):
    watched, silent = (smoke_config("mnist_mlp", "mask=targeted,smoke") for _ in range(2))
    silent.every.telemetry = "0 steps"
    first = train(watched, tmp_path / "watched", one_device)
    second = train(silent, tmp_path / "silent", one_device)
    assert first["loss"] == second["loss"]
    lines = [line for line in read(tmp_path / "watched") if "targets/changed" in line]
    assert [line["step"] for line in lines] == [3, 6]
    assert all(
        0 <= line["targets/changed"] <= 1 and line["targets/inside_90"] <= line["targets/outside_90"] for line in lines
    )
    assert not [line for line in read(tmp_path / "silent") if "targets/changed" in line]


def test_dead_units_are_columns_of_zeros():
    kernel = jnp.ones((2, 2, 1, 4)).at[..., 1].set(0).at[0, 0, 0, 2].set(0)
    assert prune.dead_units({"w1": kernel, "w2": jnp.zeros((3, 2))})["w1"].tolist() == [False, True, False, False]
    assert prune.dead_units({"w1": kernel, "w2": jnp.zeros((3, 2))})["w2"].all()


def test_a_prune_curve_counts_dead_units_and_warns_of_an_empty_layer(plain, caplog):
    with caplog.at_level(logging.WARNING, "td.curve"):
        rows = prune_curve(load_trained(plain)[1], [0.0, 0.5, 1.0], granularity="unit")
    assert [row.dead_units for row in rows] == [0.0, 0.5, 1.0]
    assert [row.empty_layers for row in rows] == [0, 0, 1]
    (told,) = [record.getMessage() for record in caplog.records if record.name == "td.curve"]
    assert told == "100 % pruned: nothing is left of hidden/kernel"
