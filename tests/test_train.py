"""Training: one trace, what a run leaves behind, and what it refuses."""

import itertools
import json
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, final_state

import td
import td.train as module
from td import data, step
from td.checkpoint import Checkpoints
from td.data import base
from td.execution import Execution
from td.experiment import build
from td.metrics import read
from td.train import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


def test_a_run_leaves_what_the_readme_says(finished):
    config, folder, result = finished
    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "metrics.jsonl",
        "events",
        "checkpoints",
        "result.json",
    }
    assert list((folder / "events").iterdir())
    assert result["steps"] == 12 and result["examples"] == 60 and result["config"] == json.loads(config.to_json())
    assert {"hardware", "versions", "date", "commit", "images_per_second"} <= set(result)


def test_the_log_holds_every_number_that_was_asked_for(finished):
    lines = read(finished[1])
    logged = {"step", "learning_rate", "loss", "accuracy", "gradient_norm", "parameter_norm", "penalty", "dropped"}
    logged |= {"images_per_second"}
    assert all(logged <= set(line) for line in lines if "loss" in line)
    assert [line["step"] for line in lines if "loss" in line] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert [line["step"] for line in lines if "eval/accuracy" in line] == [3, 6, 9, 12]
    share = np.mean([line["dropped"] for line in lines if "dropped" in line])
    assert share == pytest.approx(0.75 * 0.5, abs=0.03)


def test_the_same_command_again_does_nothing(finished):
    config, folder, result = finished
    before = (folder / "metrics.jsonl").read_bytes()
    assert train(config, folder) == result
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_one_trace_per_run(tiny_config, tmp_path, one_device, monkeypatch):
    traces = []
    loss = step.l2_penalty
    monkeypatch.setattr(step, "l2_penalty", lambda *arguments: traces.append(1) or loss(*arguments))
    train(tiny_config, tmp_path, one_device)
    assert len(traces) == 1


def test_one_compile_per_run_on_one_device_and_on_eight(tiny_config, tmp_path, monkeypatch):
    made = []
    make = step.make_train_step
    monkeypatch.setattr(module, "make_train_step", lambda *arguments: made.append(make(*arguments)) or made[-1])
    for count in (1, 8):
        train(tiny_config, tmp_path / str(count), Execution(jax.devices()[:count]))
    assert [train_step._cache_size() for train_step in made] == [1, 1]


def test_eight_devices_train_what_one_does(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, Execution(jax.devices()))
    for one, eight in zip(
        jax.tree.leaves(final_state(finished[1]).params), jax.tree.leaves(final_state(tmp_path).params), strict=True
    ):
        np.testing.assert_allclose(one, eight, atol=1e-5)


def test_a_batch_that_eight_devices_cannot_share_is_told(tiny_config, tmp_path):
    tiny_config.data.batch_size = 12
    with pytest.raises(td.UserError, match="cannot be spread evenly over 8 devices"):
        train(tiny_config, tmp_path, Execution(jax.devices()))


def test_rates_are_of_steps_alone(tiny_config, tmp_path, one_device, monkeypatch):
    """The time of an evaluation counts for no step, and the steps before it are not divided by the time after it."""
    now, evaluate, fetch = [0.0], module.score, base.train_batch

    def takes(seconds, function):
        return lambda *arguments: now.append(now.pop() + seconds) or function(*arguments)

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "score", takes(1000.0, evaluate))
    monkeypatch.setattr(base, "train_batch", takes(1.0, fetch))
    tiny_config.every.log, tiny_config.every.evaluation = "4 steps", "3 steps"
    train(tiny_config, tmp_path, one_device)
    lines = [line for line in read(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == [3, 4, 6, 8, 9, 12]
    windows = [b["step"] - a["step"] for a, b in itertools.pairwise(lines)]
    seconds = [16 * n / line["images_per_second"] for n, line in zip(windows, lines[1:], strict=True)]
    assert sum(seconds) <= 12 + 1  # a batch may be fetched before the step in front of it is done


def test_parameters_that_blow_up_in_the_last_step_are_not_saved(tiny_config, tmp_path, one_device):
    tiny_config.duration = "1 steps"
    tiny_config.optim.learning_rate = 1e38
    with pytest.raises(td.UserError, match="parameter norm is inf at step 1; none was saved"):
        train(tiny_config, tmp_path, one_device)
    assert not (tmp_path / "result.json").exists()


def test_a_workdir_of_another_config_is_refused_with_the_difference(finished):
    config, folder, _ = finished
    other = config.copy_and_resolve_references()
    other.optim.learning_rate = 0.5
    with pytest.raises(td.UserError, match=r"another config: optim.learning_rate is 0.05 there, 0.5 here; choose"):
        train(other, folder)


def test_where_the_data_lies_may_differ(finished, tmp_path):
    other = finished[0].copy_and_resolve_references()
    other.data.cache_dir = str(tmp_path)
    assert train(other, finished[1]) == finished[2]


def test_a_loss_that_is_not_finite_names_step_and_checkpoint(tiny_config, tmp_path, one_device, monkeypatch):
    make = step.make_train_step

    def make_bad(experiment, *arguments):
        transform = experiment.transform._replace(
            penalty=lambda params, gates, step: jax.numpy.where(step == 6, np.nan, 0.0)
        )
        return make(experiment._replace(transform=transform), *arguments)

    monkeypatch.setattr("td.train.make_train_step", make_bad)
    with pytest.raises(td.UserError, match=r"loss is nan at step 7; the last good checkpoint is .*checkpoints/4"):
        train(tiny_config, tmp_path, one_device)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [4]


def test_two_processes_on_one_workdir(tiny_config, tmp_path):
    from td.workdir import locked

    holder = "import sys; from pathlib import Path; from td.workdir import locked\n"
    holder += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(td.UserError, match="another process is using"):
        train(tiny_config, tmp_path)
    process.kill()
    process.communicate()
    with locked(tmp_path):
        assert not (tmp_path / "config.json").exists()


def test_tensorboard_events_hold_the_numbers_of_the_log(finished):
    from tensorboardX.proto.event_pb2 import Event

    read_back = []
    for path in (finished[1] / "events").iterdir():
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            read_back.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    losses = {e.step: e.summary.value[0].simple_value for e in read_back if "loss" in [v.tag for v in e.summary.value]}
    assert losses == {
        line["step"]: pytest.approx(line["loss"], rel=1e-6) for line in read(finished[1]) if "loss" in line
    }


@pytest.mark.slow
def test_training_learns_the_digits(smoke_config, tmp_path, one_device):
    config = smoke_config("mnist_mlp", "mask=targeted,data=digits,smoke")
    config.duration = "20 epochs"
    config.optim.learning_rate = 0.1
    config.every.checkpoint = config.every.evaluation = config.every.log = "20 epochs"
    assert train(config, tmp_path, one_device)["accuracy"] > 0.85


def test_build_refuses_a_batch_larger_than_the_data(tiny_config):
    tiny_config.data.batch_size = 2000
    with pytest.raises(td.UserError, match="batch_size=2000 is out of range"):
        build(tiny_config, data.load(tiny_config.data.to_dict()))


def same_parameters(one, other, atol):
    pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
    return all(np.allclose(a, b, atol=atol) for a, b in pairs)


def test_data_on_the_device_gives_the_same_bits(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, Execution(jax.devices()[:1], resident=True))
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=0)


@pytest.mark.parametrize("steps", [2, 5])
def test_several_steps_a_call_log_and_train_the_same(tiny_config, tmp_path, finished, steps):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, Execution(jax.devices()[:1], steps_per_call=steps, resident=True))
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=1e-5)
    wanted, found = ([line for line in read(folder) if "loss" in line] for folder in (finished[1], tmp_path))
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    np.testing.assert_allclose([line["loss"] for line in found], [line["loss"] for line in wanted], atol=1e-5)


# Two devices: eight with one thread between them can wait for each other in different all-reduces for ever.
SHARDED = Execution(jax.devices()[:2], sharded=("kernel$",))


def test_parameters_spread_over_devices_train_what_one_does(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, SHARDED)
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=1e-5)


def test_a_run_is_cut_on_several_devices_and_goes_on_on_one(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, SHARDED, until="6 steps")
    train(tiny_config, tmp_path, Execution(jax.devices()[:1]))
    assert same_parameters(final_state(finished[1]), final_state(tmp_path), atol=1e-5)


@pytest.mark.slow
def test_a_profile_is_left_where_it_was_asked_for(tiny_config, tmp_path):
    train(tiny_config, tmp_path, Execution(jax.devices()[:1], profile=True))
    assert list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (Execution(steps_per_call=0), "steps_per_call=0 is out of range"),
        (Execution(sharded=("kernl$",)), "pattern 'kernl\\$' matches nothing of the training state"),
        (Execution(sharded=("(",)), "is not a regular expression"),
    ],
)
def test_bad_execution_is_told(tiny_config, tmp_path, execution, message):
    with pytest.raises(td.UserError, match=message):
        train(tiny_config, tmp_path, execution)
