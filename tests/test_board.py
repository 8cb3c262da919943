"""Lines of a sweep, on a terminal and in a file."""

import io
import json
import logging
import os
import sys

import pytest
from ml_collections import ConfigDict

from td.io import progress as bars
from td.sweep.board import Board
from td.sweep.point import Point


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[Terminal, io.StringIO])
def opened(request, monkeypatch):
    """Open standard error as a terminal or a file, whose bars redraw at once; pytest has its own until the test."""
    monkeypatch.setattr(bars, "SELDOM", 0.0)

    def stderr():
        monkeypatch.setattr(sys, "stderr", request.param())
        return sys.stderr

    return stderr


def write_line(folder, step, **values):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "progress": step / 40, "loss": 0.5, "accuracy": 0.75, **values}) + "\n")
    os.utime(folder / "metrics.jsonl", (step, step))


def unit_in(folder):
    folder.mkdir()
    return [Point({"seed": 1}, ConfigDict(), folder, folder / "result.json")]


def test_a_points_line_has_its_state_step_loss_and_accuracy(tmp_path, opened, caplog):
    stream = opened()
    unit = unit_in(tmp_path / "run")
    write_line(tmp_path / "run", 10)
    with caplog.at_level(logging.INFO, "td"), Board([unit]) as board:
        board.show([])
        assert "seed 1" not in stream.getvalue()  # a line of an earlier command
        (tmp_path / "run" / "config.json").write_text("{}")
        os.utime(tmp_path / "run" / "config.json", (11, 11))
        board.show([])
        write_line(tmp_path / "run", 20)
        board.show([])
        assert "seed 1: train:  50%" in stream.getvalue() and "20/40" in stream.getvalue()
        assert "loss=0.5, accuracy=0.75" in stream.getvalue()
        (tmp_path / "run" / "result.json").write_text('{"accuracy": 0.875}')
        board.show([])
        assert "seed 1: score" in stream.getvalue()
        board.show([unit])
        assert "1/1" in stream.getvalue()
    assert [record.getMessage() for record in caplog.records] == ["seed 1: finished, accuracy 0.8750"]
    plain = not stream.isatty()
    assert plain == ("\r" not in stream.getvalue() and "\x1b" not in stream.getvalue())


def test_a_lotterys_line_is_of_its_latest_round(tmp_path, opened):
    stream = opened()
    unit = unit_in(tmp_path / "run")
    with Board([unit]) as board:
        for number in (0, 1):
            (tmp_path / "run" / f"round{number}").mkdir()
            write_line(tmp_path / "run" / f"round{number}", 20 + number)
        board.show([])
    assert "seed 1: round1: train" in stream.getvalue() and "21/40" in stream.getvalue()


def test_a_failed_point_says_why(tmp_path, caplog):
    unit = unit_in(tmp_path / "run")
    unit[0].fail("no\nmemory")
    with caplog.at_level(logging.INFO, "td"), Board([unit]) as board:
        board.show([unit])
    assert "seed 1: failed, no memory" in caplog.text


def test_titles_are_in_front_of_bars(opened):
    stream = opened()
    with bars.titled("seed 1"), bars.progress(range(2), desc="train") as bar:
        for _ in bar:
            pass
    assert "seed 1: train: 100%" in stream.getvalue()
