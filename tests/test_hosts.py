"""Two processes on this machine stand for two hosts."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, long_run, newest

from td.data import load
from td.data.base import Shard
from td.io import cli
from td.io.checkpoint import Checkpoints
from td.io.interrupt import STOPPED
from td.io.log import read
from td.train.loop import train


def test_hosts_read_parts_that_make_the_whole():
    split = load({"name": "digits", "validation": 100, "data_dir": "", "cache_dir": ""}).train
    whole = split.train_batch(7, 12, 0)
    parts = [next(split.train_batches(12, 0, 7, Shard(host, 3))) for host in range(3)]
    for leaf, *read_ in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(leaf, np.concatenate(read_))


def own_threads():
    """The environment without the tests' one thread a process."""
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def started(folder, *own):
    """As many hosts as are given arguments of their own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [[f"--hosts={i}/{len(own)}@localhost:{port}", *more] for i, more in enumerate(own, 1)]
    options = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True, "env": own_threads()}
    return [subprocess.Popen(long_run(folder, *more), **options) for more in flags]


@pytest.fixture
def two(tmp_path):
    """Two hosts in the middle of a run, after their first checkpoint."""
    hosts = started(tmp_path, [], [])
    while not newest(tmp_path):
        assert hosts[0].poll() is None, [host.communicate() for host in hosts]
        time.sleep(0.02)
    yield hosts
    for host in hosts:
        if host.returncode is None:
            host.kill()
            host.communicate()


@pytest.mark.slow
def test_a_run_of_two_hosts_is_killed_and_goes_on_on_one(two, tmp_path, long_config, one_device):
    for host in two:
        host.kill()
        host.communicate()
    assert not (tmp_path / "result.json").exists()
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        saved = checkpoints.steps()[-1]
    again = subprocess.Popen(long_run(tmp_path), cwd=ROOT, stderr=subprocess.DEVNULL, env=own_threads())
    train(long_config, tmp_path / "alone", one_device)
    assert again.wait() == 0
    log, alone = read(tmp_path), read(tmp_path / "alone")
    assert [line["step"] for line in log] == [line["step"] for line in alone]
    for ours, theirs in zip(log, alone, strict=True):
        if ours["step"] <= min(saved, 100) and "loss" in ours:
            assert ours["dropped"] == pytest.approx(theirs["dropped"], abs=1e-6)
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


@pytest.mark.slow
def test_sigterm_to_one_host_stops_both_at_the_same_step(two, tmp_path):
    two[1].send_signal(signal.SIGTERM)
    errors = [host.communicate()[1] for host in two]
    assert [host.returncode for host in two] == [STOPPED, STOPPED], errors
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert all(f"step {checkpoints.steps()[-1]} " in text for text in errors)


@pytest.mark.slow
def test_hosts_with_different_configs_both_stop_before_anything_is_written(tmp_path):
    hosts = started(tmp_path / "run", [], ["--config.optim.learning_rate=0.3"])
    errors = [host.communicate()[1] for host in hosts]
    assert [host.returncode for host in hosts] == [2, 2], errors
    assert all("error: the hosts have not the same config" in text for text in errors)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_host_whose_peer_is_gone_says_so_in_one_line(monkeypatch, capsys):
    def lost():
        raise jax.errors.JaxRuntimeError("Gloo all-reduce failed: Connection reset by peer")

    with pytest.raises(jax.errors.JaxRuntimeError):  # alone, it is another error
        cli._guarded(lost)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as left:
        cli._guarded(lost)
    assert left.value.code == 2 and "error: another host is gone" in capsys.readouterr().err
