"""Run folders in Google Cloud Storage: over a file system in memory, and over an emulator on this machine."""

import subprocess
import sys
import time
from urllib.parse import unquote, urlparse

import fsspec
import pytest
from conftest import ROOT, final_state, lines_of, long_run, trees_equal
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from ml_collections import ConfigDict

import td
from td.evaluate.curve_files import read_curve, write_curve
from td.io import log, run_folder
from td.io.files import absolute, as_path, read_json, replacing, write_json
from td.train.loop import train


@pytest.fixture
def store(monkeypatch):
    """A folder of a store in memory."""
    monkeypatch.setattr(epath.backend.fsspec_backend, "fs", lambda _: MemoryFileSystem())
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    return epath.Path("gs://bucket/run")


def test_a_path_of_a_store_is_as_given_and_needs_a_store_that_orbax_knows(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", fsspec)  # it is there
    path = as_path("gs://bucket/run")
    assert str(absolute(path)) == str(path) == "gs://bucket/run"
    with pytest.raises(td.UserError, match="neither"):
        as_path("s3://bucket/run")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(td.UserError, match="gcsfs"):
        as_path("gs://bucket/run")


def test_a_file_of_a_store_is_replaced_whole_or_not(store):
    write_json(store / "a.json", 1)
    with pytest.raises(KeyboardInterrupt), replacing(store / "a.json") as temporary:
        temporary.write_text("2")
        raise KeyboardInterrupt
    assert read_json(store / "a.json") == 1
    write_json(store / "a.json", 3)
    assert read_json(store / "a.json") == 3


def test_a_log_in_a_store_has_all_lines_up_to_a_checkpoint_and_up_to_an_error(store):
    with pytest.raises(KeyboardInterrupt), log.MetricLog(store, 0, ConfigDict()) as written:
        written.write(1, {"loss": 2.0})
        written.upload()
        assert log.read(store) == [{"step": 1, "loss": 2.0}]
        written.write(2, {"loss": 1.0})
        raise KeyboardInterrupt
    with log.MetricLog(store, 1, ConfigDict()):
        pass
    assert log.read(store) == [{"step": 1, "loss": 2.0}]
    assert len(list((store / "events").iterdir())) == 2


def test_a_run_folder_in_a_store_is_not_locked_and_says_so(store, tiny_config, caplog):
    with run_folder.lock(store, tiny_config), run_folder.lock(store, tiny_config):
        run_folder.record(store, tiny_config, "")
    assert caplog.text.count("has no locks") == 2
    tiny_config.seed = 1
    with pytest.raises(td.UserError, match="another config"), run_folder.lock(store, tiny_config):
        pass


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of an emulator that gcsfs, TensorStore and Google's client for Orbax use by their own protocols."""
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server")

    class Handler(server.RequestHandler):
        def end_headers(self):  # the emulator leaves out the generation, which TensorStore reads
            name, _, path = urlparse(self.path).path.removeprefix("/storage/v1/b/").partition("/o/")
            if found := self.storage.objects.get(name, {}).get(unquote(path)):
                self.send_header("x-goog-generation", found["generation"])
            super().end_headers()

    monkeypatch.setattr(server, "RequestHandler", Handler)
    with server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket") as running:
        address = f"http://127.0.0.1:{running._api._httpd.server_port}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        yield as_path("gs://bucket")


def committed(folder):
    """The step of the newest checkpoint that is whole: a file of Orbax's says so."""
    return max((int(path.parent.name) for path in folder.glob("checkpoints/*/commit_success.txt")), default=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Google's clients
def test_a_run_in_a_store_that_is_killed_resumes_and_is_pruned_and_compared(
    bucket, long_config, tmp_path, one_device, command, caplog
):
    there, here = bucket / "runs" / "a", tmp_path / "a"
    long_config.duration = "120 steps"
    train(long_config, here, one_device)
    line = long_run(there, "--config.duration=120 steps")
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while committed(there) < 40 and process.poll() is None:
        time.sleep(0.2)
    process.kill()
    assert process.communicate()[0].count("has no locks") == 1 and process.returncode == -9
    saved = committed(there)
    manifest = there / "checkpoints" / str(saved) / "state" / "manifest.ocdbt"
    manifest.write_bytes(manifest.read_bytes()[:-8] + b"damaged!")
    train(long_config, there, one_device)
    assert f"checkpoint {saved}" in caplog.text
    assert list(there.glob("damaged-*")) == [there / f"damaged-{saved}-0"]
    assert trees_equal(final_state(there), final_state(here))
    assert [line["step"] for line in lines_of(there / "metrics.jsonl")] == [
        line["step"] for line in lines_of(here / "metrics.jsonl")
    ]
    assert read_json(there / "result.json")["accuracy"] == read_json(here / "result.json")["accuracy"]
    for folder in (there, here):
        write_curve(folder, "0,0.5")
    assert read_curve(there) == read_curve(here)
    ended = command("report.py", f"--out={bucket}/picture.png", there)
    assert ended.code == 0 and (bucket / "picture.pdf").read_bytes().startswith(b"%PDF")
