"""A bounded list of commands: what fails is reported, what is cut off continues, what is finished is not repeated."""

import json
import re
import sys
import tarfile

import pytest
from conftest import ROOT, long_run

from td.bench import evidence
from td.bench.evidence import Item
from td.errors import UserError
from td.io import provenance


def python(text):
    return [sys.executable, "-c", text]


def test_items_are_bounded_and_a_failure_does_not_stop_the_next(tmp_path, monkeypatch):
    def plan(scale, work):
        wait = python("import time; time.sleep(60)")
        write = python(f"import pathlib; pathlib.Path({str(work)!r}, 'note').write_text({scale!r})")
        return [Item("a", 1, [python("raise ValueError('broken')")]), Item("b", 0.05, [wait]), Item("c", 1, [write])]

    monkeypatch.setattr(evidence, "_about", provenance.describe)
    monkeypatch.setattr(evidence, "plan", plan)
    text = evidence.gather(0.3, tmp_path, tmp_path, "smoke")
    found = json.loads((tmp_path / "evidence.json").read_text())
    assert [item["state"] for item in found["items"]] == ["failed", "cut off", "finished"]
    assert found["items"][0]["errors"] == ["ValueError: broken"] and found["items"][1]["seconds"] < 12
    assert "ValueError: broken" in text and not found["too large"] and found["commit"]
    with tarfile.open(tmp_path / "results.tar") as archive:
        assert archive.extractfile("note").read() == b"smoke"
    second = tmp_path / "second"
    evidence.gather(0.05, second, tmp_path, "smoke")
    assert json.loads((second / "evidence.json").read_text())["items"][0]["name"] == "c"  # done before
    with tarfile.open(second / "results.tar") as archive:
        assert archive.extractfile("note").read() == b"smoke"
    with pytest.raises(UserError, match="is of scale smoke"):
        evidence.gather(0.2, second, tmp_path, "paper")


def test_a_command_that_does_not_end_is_not_finished(tmp_path):
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert evidence._run(Item("a", 1, [python(ignore)]), 0.8, tmp_path, lambda _: False)["state"] == "cut off"


@pytest.mark.slow
def test_a_run_that_is_cut_off_continues_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def plan(scale, work):
        return [Item("table2", 1, [long_run(work / "tables" / "runs" / "mlp", "--config.duration=9000 epochs")])]

    monkeypatch.setattr(evidence, "plan", plan)
    steps = []
    for _ in range(2):
        evidence.gather(0.45, tmp_path, tmp_path, "smoke")
        found = json.loads((tmp_path / "evidence.json").read_text())
        steps.append(found["runs"][0]["step"])
        assert found["items"][0]["state"] == "cut off" and found["runs"][0]["images a second"] > 0
        assert (tmp_path / "checkpoint-mlp.tar").exists()
    with tarfile.open(tmp_path / "results.tar") as archive:
        said = archive.extractfile("logs/table2-0.err").read().decode()
    assert 0 < steps[0] < steps[1] and re.search(rf"resuming from checkpoint {steps[0]} ", said)


@pytest.mark.slow
def test_the_whole_list_runs_at_smoke_scale(tmp_path, command, monkeypatch):
    monkeypatch.setattr(evidence, "COLUMNS", {"table2_unit": ("none", "targeted .9/.75")})
    done = command("gpu_evidence.py", "--scale=smoke", "--minutes=20", f"--out={tmp_path}")
    found = json.loads((tmp_path / "evidence.json").read_text())
    assert done.code == 0 and {item["state"] for item in found["items"]} == {"finished"}, found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence.json", "evidence.md", "results.tar"]
    assert len(found["runs"]) == 2 and "targeted .9/.75" in done.out and "8 in one program" in done.out
