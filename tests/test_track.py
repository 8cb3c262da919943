"""Trackers: each really runs offline, and is read back by its own means."""

import json
import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ROOT, lines_of, long_run, newest
from ml_collections import ConfigDict

from td.errors import UserError
from td.io import track
from td.io.log import MetricLog

OTHERS = ("mlflow", "trackio", "wandb")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder for what the trackers store, without a server."""
    settings = {"WANDB_MODE": "offline", "WANDB_DIR": tmp_path, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/ml.db"}
    for name, value in {**settings, "TRACKIO_DIR": tmp_path / "trackio"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts
    return tmp_path


def stored(name, store):
    """What a tracker has: of every run its lines, in the order in which they came; a table is `None`."""
    if name == "wandb":
        found = {}
        for path in sorted(store.glob("wandb/offline-run-*/*.wandb")):
            inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
            text = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
            records = [json.loads(line) for line in text.splitlines()]
            lines = [record["history"]["item"] for record in records if record["type"] == "history"]
            found.setdefault(path.name, []).extend((line["_step"], line.get("loss")) for line in lines)
        return [*found.values()]
    # Trackio fixes its folder, and MLflow its store, when they are imported: in a process that knows this one.
    done = subprocess.run([sys.executable, "-c", READ[name]], capture_output=True, text=True, check=True)
    return [[tuple(pair) for pair in run] for run in json.loads(done.stdout.splitlines()[-1])]


READ = {
    "mlflow": """
import json, mlflow
client, found = mlflow.MlflowClient(), []
for run in client.search_runs([client.get_experiment_by_name("targeted-dropout").experiment_id]):
    assert run.info.status == "FINISHED" and run.data.tags["method"] == run.data.params["mask.name"] == "targeted"
    lines = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda line: line.timestamp)
    tables = client.list_artifacts(run.info.run_id, "prune_curve")
    found.append([(line.step, line.value) for line in lines] + [(lines[-1].step + 1, None) for _ in tables])
print(json.dumps(found))
""",
    "trackio": """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
found = []
for run in trackio.Api().runs("targeted-dropout"):
    assert run.config["mask.name"] == run.config["method"] == "targeted" and run.config["commit"]
    lines = SQLiteStorage.get_logs("targeted-dropout", run.name)
    assert ("prune_curve/weight-dense" in lines[-1]) == ("loss" not in lines[-1])
    found.append([(line["step"], line.get("loss")) for line in lines])
print(json.dumps(found))
""",
}


def logged(folder):
    return [(line["step"], line["loss"]) for line in lines_of(folder / "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_run_that_is_killed_twice_is_one_run_there_with_every_step_once(name, store):
    pytest.importorskip(name, reason=f"the extra [{name}] is not installed")
    folder = store / "run"
    for step in (100, 200):
        with subprocess.Popen(long_run(folder, f"--track={name}"), cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            end = time.monotonic() + 300
            while newest(folder) < step and process.poll() is None:
                assert time.monotonic() < end, "too slow"
                time.sleep(0.02)
            process.kill()
        assert step <= newest(folder) < 400
    subprocess.run(long_run(folder, f"--track={name}"), cwd=ROOT, check=True, capture_output=True)
    assert stored(name, store) == [logged(folder)]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_sweep_adds_prune_curves_to_runs_of_two_processes(name, store):
    pytest.importorskip(name, reason=f"the extra [{name}] is not installed")
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    config = [f"--config={ROOT}/configs/mnist_mlp.py:mask=targeted,smoke", "--sweep=seed=0,1", "--rates=0,0.5"]
    line = [sys.executable, f"{ROOT}/scripts/sweep.py", *config, "--jobs=2", "--workdir=out", f"--track={name}"]
    subprocess.run(line, cwd=store, env={**os.environ, "PYTHONPATH": search}, check=True, capture_output=True)
    assert sorted(stored(name, store)) == sorted([*logged(run), (7, None)] for run in store.glob("out/runs/*"))


class Kept:
    """A tracker that has the steps up to 3."""

    last = 3

    def __init__(self):
        self.lines, self.failed = [], None

    def write(self, step, values):
        self.lines.append((step, *values.values()))

    def close(self, failed):
        self.failed = failed


def test_a_tracker_gets_the_lines_it_lacks_and_none_again(tmp_path, monkeypatch):
    config = ConfigDict()
    with MetricLog(tmp_path, 0, config, "") as log:
        for step in (2, 4, 6):
            log.write(step, {"loss": step / 10})
    tracker = Kept()
    monkeypatch.setitem(track.TRACKERS, "kept", lambda *_: tracker)
    with pytest.raises(ZeroDivisionError), MetricLog(tmp_path, 4, config, "kept") as log:
        assert tracker.lines == [(4, 0.4)]
        log.write(6, {"loss": 0.7})
        _ = 1 / 0
    assert tracker.lines == [(4, 0.4), (6, 0.7)] and tracker.failed


def test_tensorboard_gets_what_was_logged_without_it(finished, tmp_path):
    config, folder, _ = finished
    (tmp_path / "metrics.jsonl").write_bytes((folder / "metrics.jsonl").read_bytes())
    with MetricLog(tmp_path, 12, config):
        pass
    (events,) = (tmp_path / "events").iterdir()
    (expected,) = (folder / "events").iterdir()
    assert abs(events.stat().st_size - expected.stat().st_size) < 100


@pytest.mark.parametrize("name", OTHERS)
def test_a_missing_package_is_told_with_its_command(name, tmp_path, monkeypatch, command):
    monkeypatch.setitem(sys.modules, name, None)
    config = "--config=configs/mnist_mlp.py:smoke"
    done = command("train.py", config, f"--workdir={tmp_path / 'run'}", f"--track=tensorboard,{name}")
    assert done.code == 2 and f"pip install -e '.[{name}]'" in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_raises():
    with pytest.raises(UserError, match="unknown tracker 'wandbb': did you mean 'wandb'"):
        track.check("tensorboard,wandbb")


def test_tensorboard_has_no_tables(tmp_path, finished):
    track.add_tables("tensorboard", tmp_path, finished[0], {"curve": pd.DataFrame({"prune_rate": [0.0]})})
    assert not [*tmp_path.iterdir()]
