"""One process at a time and one config permanently in a run folder."""

import subprocess
import sys

import pytest
from ml_collections import ConfigDict

import td
from td.io import log, run_folder
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


def test_a_workdir_of_another_config_raises_with_the_difference(finished):
    config, folder, _ = finished
    other = config.copy_and_resolve_references()
    other.optim.learning_rate = 0.5
    with pytest.raises(td.UserError, match=r"another config: optim.learning_rate is 0.05 there, 0.5 here; choose"):
        train(other, folder)


def test_where_the_data_lies_may_differ(finished, tmp_path):
    other = finished[0].copy_and_resolve_references()
    other.data.cache_dir = str(tmp_path)
    assert train(other, finished[1]) == finished[2]


def test_settings_that_may_change_are_recorded_when_the_run_resumes(tiny_config, tmp_path):
    run_folder.record(tmp_path, tiny_config, "")
    tiny_config.data.data_dir, tiny_config.data.skip_corrupt = "elsewhere", True
    with run_folder.lock(tmp_path, tiny_config):
        recorded = run_folder.load_config(tmp_path).data
    assert recorded.data_dir == "elsewhere" and recorded.skip_corrupt


def test_a_run_of_td_0_1_can_be_read_and_resumed(smoke_config, tmp_path):
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    run_folder.record(tmp_path, config, "")
    path = tmp_path / "config.json"
    text = path.read_text()
    for name, former in run_folder.FORMER_NAMES.items():
        text = text.replace(name.partition(".")[2], former.partition(".")[2])
    path.write_text(text)
    read = run_folder.load_config(tmp_path)
    assert read.mask.min_kept == 0 and read.optim.ema_decay == 0.0 and read.optim.gate_lr_multiplier == 1.0
    with run_folder.lock(tmp_path, config):
        assert "spare" not in path.read_text() and "gate_rate" not in path.read_text()


def test_a_lock_records_nothing_of_a_new_run(tiny_config, tmp_path):
    with run_folder.lock(tmp_path, tiny_config):
        assert not (tmp_path / "config.json").exists()


def test_trap_a_folder_that_orbax_cannot_look_into(tiny_config, tmp_path):
    with pytest.raises(td.UserError, match=r"has a '\['"):
        train(tiny_config, tmp_path / "a[x]")
    assert not list(tmp_path.iterdir())


def test_lines_of_a_log_that_cannot_be_read_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\0\0\n{"step": 3}\n{"st')
    with log.MetricLog(tmp_path, 3, ConfigDict(), ""):
        assert log.read(tmp_path) == [{"step": 1}, {"step": 3}]


def test_two_processes_on_one_workdir(tiny_config, tmp_path):
    holder = "import filelock, sys\n"
    holder += "with filelock.FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(run_folder.Busy, match="another process is using"):
        train(tiny_config, tmp_path)
    process.kill()
    process.communicate()
    with run_folder.lock(tmp_path, tiny_config):
        assert not (tmp_path / "config.json").exists()
