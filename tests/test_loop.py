"""Training: one trace, the files of a run, and losses that are not finite."""

import itertools
import json
import subprocess

import jax
import numpy as np
import pytest
from conftest import ROOT

import td
import td.train.loop as module
from td.data import Split
from td.io import provenance
from td.io.checkpoint import Checkpoints
from td.io.log import read
from td.train import score, step
from td.train.devices import Execution
from td.train.loop import train

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


def test_rates_are_of_steps_alone(tiny_config, tmp_path, one_device, monkeypatch):
    """The time of an evaluation counts for no step, and the steps before it are not divided by the time after it."""
    now, evaluate, fetch = [0.0], score.score, Split.train_batch

    def takes(seconds, function):
        return lambda *arguments: now.append(now.pop() + seconds) or function(*arguments)

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(score, "score", takes(1000.0, evaluate))
    monkeypatch.setattr(Split, "train_batch", takes(1.0, fetch))
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
    with pytest.raises(td.UserError, match="parameter norm is inf at step 1 .* no checkpoint was saved"):
        train(tiny_config, tmp_path, one_device)
    assert not (tmp_path / "result.json").exists()


def test_a_loss_that_is_not_finite_names_step_and_checkpoint(tiny_config, tmp_path, one_device, monkeypatch):
    make = step.make_train_step

    def make_bad(experiment, *arguments):
        transform = experiment.transform._replace(
            penalty=lambda params, gates, step: jax.numpy.where(step == 6, np.nan, 0.0)
        )
        return make(experiment._replace(transform=transform), *arguments)

    monkeypatch.setattr("td.train.loop.make_train_step", make_bad)
    with pytest.raises(td.UserError, match="loss is nan at step 7 .* last good checkpoint is 4"):
        train(tiny_config, tmp_path, one_device)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [4]


@pytest.mark.slow
def test_training_learns_the_digits(smoke_config, tmp_path, one_device):
    config = smoke_config("mnist_mlp", "mask=targeted,data=digits,smoke")
    config.duration = "20 epochs"
    config.optim.learning_rate = 0.1
    config.every.checkpoint = config.every.evaluation = config.every.log = "20 epochs"
    assert train(config, tmp_path, one_device)["accuracy"] > 0.85


@pytest.mark.slow
def test_a_profile_is_left_where_it_was_asked_for(tiny_config, tmp_path):
    train(tiny_config, tmp_path, Execution(jax.devices()[:1], profile=True))
    assert list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_a_result_names_the_commit_of_its_checkout():
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert provenance.describe()["commit"].rstrip("+") == commit
