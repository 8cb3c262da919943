"""Every executor gives the same results; what is killed goes on."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT, newest

from td.errors import UserError
from td.evaluate.options import DEFAULT
from td.sweep import executors, point
from td.sweep.curves import list_points, run_sweep
from td.sweep.launch import HERE, Launch

MLP = ROOT / "configs" / "mnist_mlp.py"
ALIKE = ("accuracy", "loss", "steps", "config", "rows", "rates", "step")
"""What result files say of a network, without date, machine and speed."""


def points_in(folder, choices=("seed=0,1",)):
    return list_points(MLP, "mask=targeted,smoke", {}, choices, folder, "0,0.5", DEFAULT)


def results(folder):
    """All result files below a folder, and the checkpoints' digests."""
    found = {}
    for path in (folder / "runs").glob("*/*.json"):
        content = json.loads(path.read_text())
        found[path.parent.name, path.name] = {key: content[key] for key in ALIKE if key in content}
    for path in (folder / "runs").glob("*/checkpoints/6/facts/metadata"):
        found[path.parts[-5], "checkpoint"] = json.loads(path.read_text())["digest"]
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    run_sweep(points_in(folder), HERE)
    assert len(results(folder)) == 8
    return results(folder)


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_ends_in_the_same_results(expected, tmp_path):
    flags = ["--sweep=seed=0,1", "--rates=0,0.5", f"--workdir={tmp_path}"]
    line = [sys.executable, "scripts/sweep.py", f"--config={MLP}:mask=targeted,smoke", *flags]
    for written in ("*/checkpoints/4", "*/prune_curve*.csv"):  # while a run is trained; between two files of a curve
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda seen=written: any((tmp_path / "runs").glob(seen)))
        process.kill()
        assert process.wait() == -9
    run_sweep(points_in(tmp_path), HERE)
    assert results(tmp_path) == expected


@pytest.mark.slow
def test_jobs_side_by_side_give_the_same_bits(expected, tmp_path):
    assert "runs: 2 finished" in run_sweep(points_in(tmp_path), Launch(jobs=2))
    assert results(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*still running:ResourceWarning")  # tasks of submitit's local cluster
def test_slurm_tasks_give_the_same_bits_and_write_the_report(expected, tmp_path):
    pytest.importorskip("submitit")
    launch = Launch("slurm", slurm=("cluster=local", "partition=gpu"))
    assert run_sweep(points_in(tmp_path), launch).startswith("submitted: ")
    wait_for(lambda: all(p.state() == "finished" for p in points_in(tmp_path)) and (tmp_path / "sweep.csv").exists())
    assert results(tmp_path) == expected
    assert "finished" in run_sweep(points_in(tmp_path), launch)  # nothing is left to submit


@pytest.mark.slow
def test_ray_gives_the_same_bits_and_a_run_whose_worker_is_killed_goes_on(expected, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    listed, killed = points_in(tmp_path), []
    for _ in executors.on_ray([[p] for p in listed], Launch(ray=("num_cpus=1",))):
        working = [p for p in psutil.process_iter(["cmdline"]) if "ray::_work_quietly" in (p.info["cmdline"] or [])]
        if working and not killed and any(newest(p.folder) for p in listed):
            killed.append(working[0].kill())
    assert killed and results(tmp_path) == expected


def test_a_population_is_trained_together_and_scored(expected, tmp_path):
    told = run_sweep(points_in(tmp_path), Launch("population"))
    assert "runs: 2 finished" in told and {*results(tmp_path)} == {*expected}


def test_what_one_program_cannot_train_is_trained_alone(tmp_path, monkeypatch):
    groups = []
    monkeypatch.setattr(executors, "train_population", lambda configs, _: groups.append(len(configs)) or 1 / 0)
    monkeypatch.setattr(point, "train_rounds", lambda config, *_: groups.append(config.seed) or 1 / 0)
    listed = points_in(tmp_path, ["duration=6 steps,7 steps", "seed=0,1"])
    with pytest.raises(UserError, match="4 runs failed"):
        run_sweep(listed, Launch("population"))
    assert groups == [2, 0, 1, 2, 0, 1]


def test_a_slurm_task_whose_time_is_over_is_submitted_again(tmp_path):
    helpers = pytest.importorskip("submitit").helpers
    arguments = points_in(tmp_path), Launch("slurm"), str
    again = executors.task.checkpoint(*arguments)
    assert isinstance(again, helpers.DelayedSubmission) and again.function is executors.task and again.args == arguments


def test_jobs_divide_cores_gpus_and_their_memory(monkeypatch):
    taken = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: taken.append(cores))
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    devices = []
    for number in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
        executors.share_machine(number, 3)
        devices.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == [[0, 3], [1, 4], [2]] and devices == ["6", "7", "6"]
    assert os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION") == "0.45"


def wait_for(condition, seconds=400):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too slow"
        time.sleep(0.2)
