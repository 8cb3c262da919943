"""Checkpoints that are damaged, half-written, foreign or cannot be written."""

import errno
import gc
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, final_state, trees_equal

import td
from td.io.checkpoint import Checkpoints
from td.train.experiment import load_trained
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


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
    assert list(copy.glob("damaged*")) == [copy / "damaged-12-0"]
    gc.collect()


def test_a_half_written_checkpoint_is_not_used(finished, tmp_path, one_device):
    config, folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "result.json").unlink()
    (copy / "checkpoints" / "12").rename(copy / "checkpoints" / "12.orbax-checkpoint-tmp")
    train(config, copy, one_device)
    assert not list((copy / "checkpoints").glob("*tmp*"))
    assert trees_equal(final_state(folder), final_state(copy))


def test_all_checkpoints_damaged_is_told(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)
    for checkpoint in (copy / "checkpoints").iterdir():
        lose_facts(checkpoint)
    with pytest.raises(td.UserError, match="to start again"):
        load_trained(copy)
    (copy / "result.json").unlink()
    for _ in range(2):
        with pytest.raises(td.UserError, match="can be read"):
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


def test_a_checkpoint_of_another_network_is_told(finished, tmp_path):
    config, folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    other = config.copy_and_resolve_references()
    other.model.hidden_units = 11
    (copy / "config.json").write_text(other.to_json())
    with pytest.raises(td.UserError, match=r"of another network: .*bias is float32\[10\] there, float32\[11\] here"):
        load_trained(copy)


def test_a_full_disk_loses_no_checkpoint(finished, tmp_path):
    """A limit on file size makes every write fail as a full disk does; in a child, for the limit stays."""
    _, folder, _ = finished
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder / "checkpoints", copy)
    before = sorted(path.name for path in copy.iterdir())
    script = (
        "import resource, signal, sys, numpy as np; from pathlib import Path\n"
        "from td.io.checkpoint import Checkpoints\n"
        "from td.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "with Checkpoints(Path(sys.argv[1])) as checkpoints:\n"
        "    try: checkpoints.save(99, {'w': np.random.default_rng(0).random((300, 300))})\n"
        "    except UserError as error: print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", script, str(copy)], cwd=ROOT, capture_output=True, text=True)
    assert ": File too large; make room" in done.stdout, done.stderr
    assert sorted(path.name for path in copy.iterdir() if "tmp" not in path.name) == before
