"""One process at a time and one config for good in a run folder."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from ml_collections import ConfigDict

import td
from td.io import log, run_folder
from td.io.run_folder import ADDED, claim, flatten, load_config
from td.reproduce.jobs import run_name
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


def without(config, added):
    """The config as it was before these settings were."""
    content = config.to_dict()
    for name in added:
        section, _, setting = name.rpartition(".")
        (content[section] if section else content).pop(setting)
    return ConfigDict(content)


def test_a_config_of_before_a_setting_was_means_what_was_done_then(tiny_config, tmp_path):
    old = without(tiny_config, {*ADDED} & {*flatten(tiny_config.to_dict())})
    (tmp_path / "config.json").write_text(old.to_json())
    assert flatten(load_config(tmp_path).to_dict()) == flatten(json.loads(tiny_config.to_json()))
    claim(tmp_path, tiny_config)
    assert run_name("card", tiny_config) == run_name("card", old)
    tiny_config.data.path = "own.npz"
    assert run_name("card", tiny_config) != run_name("card", old)
    with pytest.raises(td.UserError, match="another config: data.path is '' there, 'own.npz' here"):
        claim(tmp_path, tiny_config)


def test_a_config_without_an_added_setting_goes_on(smoke_config, tmp_path):
    text = smoke_config("wmt14_transformer")
    assert "path" not in text.data
    for _ in range(2):
        claim(tmp_path, text)
    assert load_config(tmp_path).data.path == ""


def test_where_data_lie_and_what_broken_ones_are_may_change_and_the_newest_is_read(tiny_config, tmp_path):
    for place in ("first", "second", ""):
        tiny_config.data.data_dir = place
        claim(tmp_path, tiny_config)
        assert load_config(tmp_path).data.data_dir == place
    tiny_config.data.skip_corrupt = True
    claim(tmp_path, tiny_config)
    assert load_config(tmp_path).data.skip_corrupt


def test_trap_a_folder_that_orbax_cannot_look_into(tiny_config, tmp_path):
    with pytest.raises(td.UserError, match=r"has a '\['"):
        train(tiny_config, tmp_path / "a[x]")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[]", "null", "{}", "3"])
def test_json_of_another_form_is_told(finished, tmp_path, content):
    folder = shutil.copytree(finished[1], tmp_path / "run")
    for name in ("result.json", "data.json", "config.json"):
        (folder / name).write_text(content)
        with pytest.raises(td.UserError, match=f"{name} is damaged|belongs to another config"):
            train(finished[0], folder)
            run_folder.claim_data(folder, "digest", write=False)


def test_lines_of_a_log_that_cannot_be_read_are_left_out(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\0\0\n[]\n{"step": 3}\n{"st')
    with log.MetricLog(tmp_path, 3):
        assert log.read(tmp_path) == [{"step": 1}, {"step": 3}]
    assert "line 2 of" in caplog.text and "line 3 of" in caplog.text


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
