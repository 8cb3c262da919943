"""SIGTERM stops a run at the next step, saved."""

import os
import signal

import pytest

from td.data import Split
from td.io.checkpoint import Checkpoints
from td.io.interrupt import Stopped
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


def test_sigterm_in_the_loop_stops_at_the_next_step(tiny_config, tmp_path, one_device, monkeypatch):
    fetch = Split.train_batch

    def sends_sigterm(split, number, *rest):
        if number == 6:  # fetched while the step before it is still to be done
            os.kill(os.getpid(), signal.SIGTERM)
        return fetch(split, number, *rest)

    monkeypatch.setattr(Split, "train_batch", sends_sigterm)
    with pytest.raises(Stopped, match="step 6"):
        train(tiny_config, tmp_path, one_device)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == 6
