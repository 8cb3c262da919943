"""Training: one trace, what a run leaves behind, resuming bit for bit, and everything that may go wrong on the way."""

import errno
import gc
import itertools
import json
import os
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, lines_of, trees_equal

import td
import td.train as module
from td import data, step
from td.checkpoint import Checkpoints
from td.experiment import build, load_trained
from td.metrics import read
from td.train import STOPPED, Stopped, train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted run of 12 steps, for all tests that only look."""
    config = runpy.run_path(str(ROOT / "configs" / "mnist_mlp.py"))["get_config"]("mask=targeted,smoke")
    config.duration = "12 steps"
    config.optim.learning_rate = 0.05
    config.optim.momentum = 0.9
    config.every.checkpoint = "4 steps"
    folder = tmp_path_factory.mktemp("finished")
    result = train(config, folder, jax.devices()[:1])
    return config, folder, result


def final_state(folder):
    return load_trained(folder)[1].state


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
    assert result["steps"] == 12 and result["examples"] == 397 and result["config"] == json.loads(config.to_json())
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
        train(tiny_config, tmp_path / str(count), jax.devices()[:count])
    assert [train_step._cache_size() for train_step in made] == [1, 1]


def test_eight_devices_train_what_one_does(tiny_config, tmp_path, finished):
    tiny_config.mask = finished[0].mask
    train(tiny_config, tmp_path, jax.devices())
    for one, eight in zip(
        jax.tree.leaves(final_state(finished[1]).params), jax.tree.leaves(final_state(tmp_path).params), strict=True
    ):
        np.testing.assert_allclose(one, eight, atol=1e-5)


def test_a_batch_that_eight_devices_cannot_share_is_told(tiny_config, tmp_path):
    tiny_config.data.batch_size = 12
    with pytest.raises(td.UserError, match="cannot be spread evenly over 8 devices"):
        train(tiny_config, tmp_path, jax.devices())


MOMENTS = {
    "fetching a batch": (data, "train_batch", 5),
    "evaluating": (module, "score", 2),
    "saving": (Checkpoints, "save", 2),
    "after the last checkpoint": (module, "_result", 1),
    "writing the result": (module.workdir, "write_json", 1),
}


def dies(function, when):
    calls = []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == when:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return wrapped


def config_to_cut(mask):
    config = runpy.run_path(str(ROOT / "configs" / "mnist_mlp.py"))["get_config"](f"mask={mask},smoke")
    config.every.checkpoint, config.every.log = "3 steps", "4 steps"
    return config


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """One uninterrupted run a method, to compare with."""
    folder = tmp_path_factory.mktemp("uncut")
    for mask in ("ramping", "random_prune"):
        train(config_to_cut(mask), folder / mask, jax.devices()[:1])
    return folder


@pytest.mark.parametrize(
    ("moment", "mask"), [*((moment, "ramping") for moment in MOMENTS), ("fetching a batch", "random_prune")]
)
def test_a_run_cut_at_any_moment_ends_in_the_same_bits_and_log(uncut, tmp_path, one_device, mask, moment):
    config = config_to_cut(mask)
    owner, name, when = MOMENTS[moment]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, dies(getattr(owner, name), when))
        train(config, tmp_path / "cut", one_device)
    train(config, tmp_path / "cut", one_device)
    assert trees_equal(final_state(uncut / mask), final_state(tmp_path / "cut"))
    assert without_times(read(uncut / mask)) == without_times(read(tmp_path / "cut"))


def without_times(lines):
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def test_a_network_with_batch_norm_resumes_in_the_same_bits(smoke_config, tmp_path, one_device):
    config = smoke_config("digits_resnet", "mask=targeted,smoke")
    train(config, tmp_path / "whole", one_device)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(data, "train_batch", dies(data.train_batch, 4))
        train(config, tmp_path / "cut", one_device)
    train(config, tmp_path / "cut", one_device)
    assert trees_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))


def test_rates_are_of_steps_alone(tiny_config, tmp_path, one_device, monkeypatch):
    """The time of an evaluation counts for no step, and the steps before it are not divided by the time after it."""
    evaluate = module.score
    monkeypatch.setattr(module, "score", lambda *arguments: time.sleep(0.5) or evaluate(*arguments))
    tiny_config.every.log, tiny_config.every.evaluation = "4 steps", "3 steps"
    train(tiny_config, tmp_path, one_device)
    lines = [line for line in read(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == [3, 4, 6, 8, 9, 12]
    windows = [b["step"] - a["step"] for a, b in itertools.pairwise(lines)]
    seconds = [16 * n / line["images_per_second"] for n, line in zip(windows, lines[1:], strict=True)]
    assert max(seconds) < 0.4


def command(folder):
    """The real command line; slow enough to be caught in the middle, quick enough for a test."""
    return [
        sys.executable,
        "scripts/train.py",
        "--config=configs/mnist_mlp.py:mask=targeted,smoke",
        f"--workdir={folder}",
        "--config.duration=400 steps",
        "--config.optim.learning_rate=0.05",
        "--config.every.checkpoint=20 steps",
        "--config.every.log=100 steps",
        "--config.every.evaluation=400 steps",
    ]


def start(folder):
    process = subprocess.Popen(command(folder), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not any((folder / "checkpoints").glob("[0-9]*/commit_success.txt")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process


def test_kill_9_then_the_same_command_gives_the_same_bits(tmp_path):
    whole = subprocess.Popen(
        command(tmp_path / "whole"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    process = start(tmp_path / "killed")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "result.json").exists()
    subprocess.run(command(tmp_path / "killed"), cwd=ROOT, check=True, capture_output=True)
    assert whole.wait() == 0
    assert trees_equal(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


def test_sigterm_saves_and_leaves_with_its_own_code(tmp_path):
    process = start(tmp_path)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == STOPPED and "give the same command again" in errors and "Traceback" not in errors
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert f"step {checkpoints.steps()[-1]} " in errors
    assert not (tmp_path / "result.json").exists()


def test_sigterm_in_the_loop_stops_at_the_next_step(tiny_config, tmp_path, one_device, monkeypatch):
    fetch = data.train_batch

    def sends_sigterm(split, number, *rest):
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return fetch(split, number, *rest)

    monkeypatch.setattr(data, "train_batch", sends_sigterm)
    with pytest.raises(Stopped, match="step 6"):
        train(tiny_config, tmp_path, one_device)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == 6


def damage_values(checkpoint):
    for path in (checkpoint / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))


def lose_metadata(checkpoint):
    (checkpoint / "state" / "manifest.ocdbt").unlink()


def lose_facts(checkpoint):
    (checkpoint / "facts" / "metadata").write_text("{")


def empty_files(checkpoint):
    for path in (checkpoint / "state").rglob("d/*"):
        path.write_bytes(b"")


@pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning")  # as in cli: reads that still fail
@pytest.mark.parametrize("damage", [damage_values, lose_metadata, lose_facts, empty_files])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(finished, tmp_path, damage, caplog, one_device):
    config, folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "result.json").unlink()
    damage(copy / "checkpoints" / "12")
    train(config, copy, one_device)
    assert "checkpoint 12" in caplog.text and "is damaged" in caplog.text
    assert trees_equal(final_state(folder), final_state(copy))
    assert [path.name for path in (copy / "damaged").iterdir()] == ["12-0"]
    gc.collect()


def test_a_half_written_checkpoint_is_reported_and_not_used(finished, tmp_path, caplog, one_device):
    config, folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "result.json").unlink()
    (copy / "checkpoints" / "12").rename(copy / "checkpoints" / "12.orbax-checkpoint-tmp")
    train(config, copy, one_device)
    assert "12.orbax-checkpoint-tmp was left half-written" in caplog.text
    assert trees_equal(final_state(folder), final_state(copy))


def test_all_checkpoints_damaged_is_told(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)
    for checkpoint in (copy / "checkpoints").iterdir():
        lose_facts(checkpoint)
    (copy / "result.json").unlink()
    for _ in range(2):
        with pytest.raises(td.UserError, match=r"no checkpoint in .* can be read"):
            train(finished[0], copy)
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["12", "8"]


def test_too_many_open_files_are_no_damage(finished, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)

    def refuses(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Checkpoints, "_read", refuses)
    with pytest.raises(OSError, match="Too many open files"):
        load_trained(copy)


def test_parameters_that_blow_up_in_the_last_step_are_not_saved(tiny_config, tmp_path, one_device):
    tiny_config.duration = "1 steps"
    tiny_config.optim.learning_rate = 1e38
    with pytest.raises(td.UserError, match="parameter norm is inf at step 1; none was saved"):
        train(tiny_config, tmp_path, one_device)
    assert not (tmp_path / "result.json").exists()


def test_a_checkpoint_of_another_network_is_told(finished, tmp_path):
    config, folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    other = config.copy_and_resolve_references()
    other.model.hidden_units = 11
    (copy / "config.json").write_text(other.to_json())
    with pytest.raises(td.UserError, match=r"of another network: .*bias is float32\[10\] there, float32\[11\] here"):
        load_trained(copy)


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

    def make_bad(experiment, replicated=None):
        transform = experiment.transform._replace(
            penalty=lambda params, gates, step: jax.numpy.where(step == 6, np.nan, 0.0)
        )
        return make(experiment._replace(transform=transform), replicated)

    monkeypatch.setattr("td.train.make_train_step", make_bad)
    with pytest.raises(td.UserError, match=r"loss is nan at step 7; the last good checkpoint is .*checkpoints/4"):
        train(tiny_config, tmp_path, one_device)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [4]


def test_two_processes_on_one_workdir(tiny_config, tmp_path):
    from td.workdir import locked

    holder = "import sys, time; from pathlib import Path; from td.workdir import locked\n"
    holder += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(td.UserError, match="another process is using"):
        train(tiny_config, tmp_path)
    process.kill()
    process.communicate()
    with locked(tmp_path):
        assert not (tmp_path / "config.json").exists()


def test_a_full_disk_loses_no_checkpoint(finished, tmp_path):
    """A limit on file size makes every write fail as a full disk does; in a child, for the limit stays."""
    _, folder, _ = finished
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder / "checkpoints", copy)
    before = sorted(path.name for path in copy.iterdir())
    script = (
        "import resource, signal, sys, numpy as np; from pathlib import Path; from td.checkpoint import Checkpoints\n"
        "from td.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "with Checkpoints(Path(sys.argv[1])) as checkpoints:\n"
        "    try: checkpoints.save(99, {'w': np.random.default_rng(0).random((300, 300))})\n"
        "    except UserError as error: print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", script, str(copy)], cwd=ROOT, capture_output=True, text=True)
    assert "cannot write checkpoint 99" in done.stdout and "goes on from step 12" in done.stdout, done.stderr
    assert sorted(path.name for path in copy.iterdir() if "tmp" not in path.name) == before


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


def test_a_full_disk_ends_the_run_in_one_line(tmp_path):
    script = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))\n"
        "runpy.run_path('scripts/train.py', run_name='__main__')\n"
    )
    line = [sys.executable, "-c", script, *command(tmp_path)[2:], "--config.every.log=1 steps"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "error: " in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_the_log_drops_what_a_killed_run_wrote_after_its_checkpoint(finished, tmp_path, one_device):
    config, folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "result.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "12")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss"')
    train(config, copy, one_device)
    assert [line["step"] for line in lines_of(copy / "metrics.jsonl")] == [line["step"] for line in read(folder)]


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
