"""Runs that are killed, stopped or out of disk go on with the same command and end in the same bits."""

import runpy
import signal
import subprocess
import sys
import time

import jax
import pytest
from conftest import ROOT, final_state, long_run, newest, trees_equal

import td.train.loop as module
from td.data import Split
from td.io.checkpoint import Checkpoints
from td.io.interrupt import STOPPED
from td.io.log import read
from td.train import score
from td.train.devices import Execution
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


MOMENTS = {
    "fetching a batch": (Split, "train_batch", 5),
    "evaluating": (score, "as_score", 2),
    "saving": (Checkpoints, "save", 2),
    "after the last checkpoint": (module, "describe_result", 1),
    "writing the result": (module, "write_json", 1),
}


def dies(function, when):
    calls = []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == when:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return wrapped


def config_to_cut(mask):
    config = runpy.run_path(str(ROOT / "configs" / "mnist_mlp.py"))["get_config"](f"mask={mask},smoke")
    config.every.checkpoint, config.every.log = "3 steps", "4 steps"
    return config


CARRY = ("random_prune", "random_targets", "l0", "variational", "smallify", "gradual")
"""The methods that carry gates or stats (lottery tickets: tests/test_rounds.py)."""


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """The folder of one uninterrupted run a method, to compare with."""
    folder = tmp_path_factory.mktemp("uncut")

    def of(mask):
        train(config_to_cut(mask), folder / mask, Execution(jax.devices()[:1]))
        return folder / mask

    return of


@pytest.mark.parametrize(
    ("moment", "mask"),
    [
        *((moment, "ramping") for moment in MOMENTS),
        *(pytest.param("fetching a batch", mask, marks=pytest.mark.slow) for mask in CARRY),
    ],
)
def test_a_run_cut_at_any_moment_ends_in_the_same_bits_and_log(uncut, tmp_path, one_device, mask, moment):
    config = config_to_cut(mask)
    owner, name, when = MOMENTS[moment]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, dies(getattr(owner, name), when))
        train(config, tmp_path / "cut", one_device)
    train(config, tmp_path / "cut", one_device)
    assert trees_equal(final_state(uncut(mask)), final_state(tmp_path / "cut"))
    assert without_times(read(uncut(mask))) == without_times(read(tmp_path / "cut"))


def without_times(lines):
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


@pytest.mark.slow
def test_a_network_with_batch_norm_resumes_in_the_same_bits(trained, smoke_config, tmp_path, one_device):
    config = smoke_config("digits_resnet", "mask=targeted,smoke")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Split, "train_batch", dies(Split.train_batch, 4))
        train(config, tmp_path, one_device)
    train(config, tmp_path, one_device)
    assert trees_equal(final_state(trained), final_state(tmp_path))


def start(folder):
    """The command, in the middle of its work: it has saved once more than those before it."""
    before = newest(folder)
    process = subprocess.Popen(long_run(folder), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while newest(folder) == before:
        assert process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_after_sigterm_and_kill_9_the_same_command_gives_the_same_bits(long_config, tmp_path, one_device):
    stopped = start(tmp_path / "cut")
    stopped.terminate()
    _, errors = stopped.communicate()
    assert stopped.returncode == STOPPED and "rerun the same command" in errors and "Traceback" not in errors
    assert f"step {newest(tmp_path / 'cut')} " in errors
    killed = start(tmp_path / "cut")
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "cut" / "result.json").exists()
    subprocess.run(long_run(tmp_path / "cut"), cwd=ROOT, check=True, capture_output=True)
    train(long_config, tmp_path / "whole", one_device)
    assert trees_equal(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line(tmp_path):
    script = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))\n"
        "runpy.run_path('scripts/train.py', run_name='__main__')\n"
    )
    line = [sys.executable, "-c", script, *long_run(tmp_path, "--config.every.log=1 steps")[2:]]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "error: " in done.stderr and "Traceback" not in done.stderr, done.stderr
