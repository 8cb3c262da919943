"""What the log says of a method's targets."""

import jax.numpy as jnp
import pytest

from td.data import load
from td.io.log import read
from td.train.experiment import build
from td.train.loop import train
from td.train.telemetry import make_telemetry


def with_kernel(state, kernel):
    return state._replace(params={**state.params, "hidden": {**state.params["hidden"], "kernel": kernel}})


def test_the_share_that_changes_and_the_magnitudes_by_hand(smoke_config):
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    config.mask.target_proportion = 0.5
    run, state = build(config, load(config.data.to_dict()))
    shape = state.params["hidden"]["kernel"].shape
    rising = jnp.broadcast_to(jnp.arange(1.0, shape[0] + 1)[:, None], shape)
    watched = make_telemetry(run.experiment, config.mask.to_dict(), config.granularity)
    before = watched.targets(with_kernel(state, rising))
    assert bool((before["hidden/kernel"] == (rising <= shape[0] / 2)).all())
    same = watched.watch(before, with_kernel(state, rising))
    assert same["targets/changed"] == 0
    assert float(same["targets/inside_50"]) == pytest.approx(shape[0] / 4 + 0.5)
    assert float(same["targets/outside_50"]) == pytest.approx(shape[0] * 3 / 4 + 0.5)
    # The smallest weight of the first of ten units becomes its largest: one of 320 targets is another.
    moved = rising.at[0, 0].set(1000.0)
    assert float(watched.watch(before, with_kernel(state, moved))["targets/changed"]) == pytest.approx(
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


@pytest.mark.parametrize("name", ["targeted", "xtreme"])
def test_what_is_watched_are_the_methods_own_targets(smoke_config, name):
    config = smoke_config("mnist_mlp", f"mask={name},smoke")
    if name == "targeted":
        config.mask.scope, config.mask.evaluation = "layer", "prune_targets"
    run, state = build(config, load(config.data.to_dict()))
    watched = make_telemetry(run.experiment, config.mask.to_dict(), config.granularity)
    final = state._replace(step=jnp.int32(run.steps))
    seen = run.experiment.transform.apply(state.params, state.mask_vars, key=None, step=final.step)[0]
    assert (watched.targets(final)["hidden/kernel"] == (seen["hidden"]["kernel"] == 0)).all()
