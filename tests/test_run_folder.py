"""One process at a time and one config for good in a run folder."""

import subprocess
import sys

import pytest
from conftest import ROOT

import td
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


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


def test_two_processes_on_one_workdir(tiny_config, tmp_path):
    from td.io.run_folder import locked

    holder = "import sys; from pathlib import Path; from td.io.run_folder import locked\n"
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
