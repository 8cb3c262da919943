"""A run on several devices, in pieces or with its data on the device is the same run."""

import jax
import numpy as np
import pytest
from conftest import DEVICES, final_state

import td
from td.io.log import read
from td.train.devices import Execution, call_sizes, make_mesh, state_shardings
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


def test_eight_devices_train_what_one_does(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, Execution(jax.devices()))
    for one, eight in zip(
        jax.tree.leaves(final_state(finished[1]).params), jax.tree.leaves(final_state(tmp_path).params), strict=True
    ):
        np.testing.assert_allclose(one, eight, atol=1e-5)


def test_a_run_that_names_no_devices_takes_all(monkeypatch):
    monkeypatch.setattr(Execution, "devices", DEVICES)
    assert make_mesh(Execution(), [16]).size == len(jax.devices()) == 8


def test_a_batch_that_eight_devices_cannot_share_is_told(tiny_config, tmp_path):
    tiny_config.data.batch_size = 12
    with pytest.raises(td.UserError, match="cannot be sharded evenly over 8 devices"):
        train(tiny_config, tmp_path, Execution(jax.devices()))


def same_parameters(one, other, atol):
    pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
    return all(np.allclose(a, b, atol=atol) for a, b in pairs)


def test_data_on_the_device_gives_the_same_bits(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, Execution(jax.devices()[:1], cache_on_device=True))
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=0)


@pytest.mark.parametrize("steps", [2, 5])
def test_several_steps_a_call_log_and_train_the_same(tiny_config, tmp_path, finished, steps):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, Execution(jax.devices()[:1], steps_per_call=steps, cache_on_device=True))
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=1e-5)
    wanted, found = ([line for line in read(folder) if "loss" in line] for folder in (finished[1], tmp_path))
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    np.testing.assert_allclose([line["loss"] for line in found], [line["loss"] for line in wanted], atol=1e-5)


# Two devices: eight with one thread between them can wait for each other in different all-reduces for ever.
SHARDED = Execution(jax.devices()[:2], shard=("kernel$",))


def test_parameters_spread_over_devices_train_what_one_does(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, SHARDED)
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=1e-5)


def test_a_run_is_cut_on_several_devices_and_goes_on_on_one(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, SHARDED, until="6 steps")
    train(tiny_config, tmp_path, Execution(jax.devices()[:1]))
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=1e-5)


def test_parameters_are_not_spread_over_cpus_of_several_hosts(monkeypatch):
    mesh = make_mesh(Execution(jax.devices()[:1]), [4])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(td.UserError, match="leave out --shard"):
        state_shardings({"kernel": np.ones((2, 2))}, mesh, ["kernel$"])


@pytest.mark.parametrize(
    ("end", "together", "alone", "after", "sizes"),
    [(12, 4, [0], [0, 10], [4, 4, 1, 1, 1, 1]), (9, 2, [6], [], [2, 2, 1, 1, 2, 1])],
)
def test_calls_end_where_something_happens_between_steps(end, together, alone, after, sizes):
    assert list(call_sizes(0, end, together, alone=alone, after=after)) == sizes
