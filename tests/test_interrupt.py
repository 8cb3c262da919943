"""SIGTERM stops a run at the next step, saved."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from td.data import Split
from td.io.checkpoint import Checkpoints
from td.io.interrupt import Stopped, listening
from td.sweep import point
from td.sweep.launch import HERE
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


def test_sigterm_in_the_loop_stops_at_the_next_step(tiny_config, tmp_path, one_device, monkeypatch):
    fetch = Split.train_batch

    def sends_sigterm(split, number, *rest):
        if number == 6:  # fetched while the step before it is still to be done
            os.kill(os.getpid(), signal.SIGTERM)
        return fetch(split, number, *rest)

    monkeypatch.setattr(Split, "train_batch", sends_sigterm)
    with pytest.raises(Stopped, match="step 6 and saved"):
        train(tiny_config, tmp_path, one_device)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nested_blocks_share_what_was_heard(number):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with listening() as outer:
        with listening() as inner:
            os.kill(os.getpid(), number)
            assert inner(0)
        with listening() as later:
            assert outer(0) and later(0)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_evaluation_ends_at_once_and_is_not_a_failure(number, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(point, "train_rounds", lambda *_: None)
    scored = point.Point({}, tiny_config, tmp_path, tmp_path / "a.json", lambda: os.kill(os.getpid(), number))
    with pytest.raises(Stopped, match="before the end of an evaluation"), listening():
        point.work([scored], HERE)
    assert not [*tmp_path.iterdir()]


def test_a_second_interrupt_is_one_at_once():
    with pytest.raises(KeyboardInterrupt), listening() as stops:
        os.kill(os.getpid(), signal.SIGINT)
        assert stops(0)
        os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_than_the_main_one_nothing_is_heard():
    with ThreadPoolExecutor() as pool:

        def listens():
            with listening() as stops:
                return stops(0)

        assert pool.submit(listens).result() is False
