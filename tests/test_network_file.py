"""Copies of runs: the network alone, in half precision, read by every command."""

import jax
import numpy as np
import pytest
from conftest import trees_equal

import td
from td.export.run_copy import copy_run
from td.io.network_file import read_network, write_network
from td.io.run_folder import NETWORK
from td.train.experiment import load_trained


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("kept") / "copy"
    return out, copy_run(finished[1], out, "the command")


def test_a_copy_is_the_network_in_half_precision(finished, copied):
    (_, whole), (_, state) = load_trained(finished[1]), load_trained(copied[0], finished=True)
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float16).astype(leaf.dtype), whole.params)
    assert trees_equal(state.params, rounded) and int(state.step) == int(whole.step) == 12
    assert not trees_equal(state.params, whole.params) and state.opt_state == ()
    assert "accuracy: " in copied[1] and sum(path.stat().st_size for path in copied[0].iterdir()) < 5000


def test_a_copy_is_pruned_and_fine_tuned_like_its_run(command, copied, tmp_path):
    done = command("prune_curve.py", f"--workdir={copied[0]}", "--rates=0,0.5")
    assert done.code == 0 and " 50.0" in done.out
    out = f"--out={tmp_path / 'tuned'}"
    done = command("finetune.py", f"--workdir={copied[0]}", out, "--rates=0.5", "--duration=2 steps")
    assert done.code == 0 and " 50.0" in done.out


def test_a_copy_is_neither_trained_on_nor_pruned_when_it_is_made(command, finished, copied, tmp_path):
    done = command("train.py", "--config=configs/mnist_mlp.py:mask=targeted,smoke", f"--workdir={copied[0]}")
    assert done.code == 2 and "without its optimizer" in done.err
    where = f"--workdir={finished[1]}", f"--out={tmp_path / 'new'}"
    done = command("export.py", *where, "--format=run", "--rate=0.5")
    assert done.code == 2 and "is not pruned" in done.err and not list(tmp_path.iterdir())


def test_tiny_weights_stay_nonzero(tmp_path):
    write_network(tmp_path, {"w": np.float32([1e-9, -1e-9, 0.0])})
    found = read_network(tmp_path, {"w": np.zeros(3, np.float32)})["w"]
    assert found.tolist() == pytest.approx([2**-24, -(2**-24), 0.0])


def test_a_damaged_copy_is_one_line(command, copied, tmp_path):
    (tmp_path / NETWORK).write_bytes((copied[0] / NETWORK).read_bytes()[:-8])
    (tmp_path / "config.json").write_bytes((copied[0] / "config.json").read_bytes())
    done = command("prune_curve.py", f"--workdir={tmp_path}", "--rates=0")
    assert (
        done.code == 2 and f"cannot read {tmp_path / NETWORK}" in done.err and len(done.err.strip().splitlines()) == 1
    )


def test_numbers_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(td.UserError, match="dense/kernel has numbers that float16 lacks"):
        write_network(tmp_path, {"dense": {"kernel": np.float32([1e5])}})
    assert not list(tmp_path.iterdir())
    write_network(tmp_path, {"dense": {"kernel": np.float32([0.5])}})
    with pytest.raises(td.UserError, match=r"is of another network: dense/kernel is \[1\] there, \[2\] here"):
        read_network(tmp_path, {"dense": {"kernel": np.zeros(2, np.float32)}})
