"""Lottery tickets round by round: rewound, pruned, cut and resumed."""

import os
import shutil
import signal

import numpy as np
import pytest
from conftest import final_state, lines_of, trees_equal

import td
from td.data import Split
from td.io.checkpoint import Checkpoints
from td.io.interrupt import Stopped
from td.train.loop import train, train_rounds


@pytest.fixture
def lottery_config(tiny_config, smoke_config):
    tiny_config.mask = smoke_config("mnist_mlp", "mask=lottery,smoke").mask
    tiny_config.mask.rounds = 2
    tiny_config.mask.rewind = "25%"  # step 3
    return tiny_config


def lowest_half(kernel, kept):
    """Of one kernel's weights that are left, the half of lowest magnitude, by a stable sort."""
    order = np.argsort(np.where(kept, np.abs(kernel), 0).ravel(), kind="stable")
    gone = np.zeros(kernel.size, bool)
    gone[order[: kernel.size - (kept.sum() - kept.sum() // 2)]] = True
    return ~gone.reshape(kernel.shape)


def test_every_round_prunes_half_of_what_is_left_and_starts_at_the_rewound_step(lottery_config, tmp_path, one_device):
    result = train_rounds(lottery_config, tmp_path, one_device)
    origin, *rounds = (final_state(tmp_path / name) for name in ("origin", "round0", "round1", "."))
    assert int(origin.step) == 3 and [int(state.step) for state in rounds] == [12, 12, 12]
    path = "hidden/kernel"
    masks = [np.asarray(state.mask_vars.stats[path]) for state in (origin, *rounds)]
    assert masks[0].all() and masks[1].all()
    kernels = [np.asarray(state.params["hidden"]["kernel"]) for state in rounds]
    for number in (0, 1):
        np.testing.assert_array_equal(masks[number + 2], lowest_half(kernels[number], masks[number + 1]))
        assert not kernels[number + 1][~masks[number + 2]].any()
    assert masks[3].mean() == 0.25
    for name in ("round0", "round1", "."):
        steps = [line["step"] for line in lines_of(tmp_path / name / "metrics.jsonl")]
        assert min(steps) > 3 and max(steps) == 12
    assert result["steps"] == 12 and result == train_rounds(lottery_config, tmp_path, one_device)


def test_durations_in_percent_resume(lottery_config, tmp_path, one_device):
    lottery_config.mask.rewind, lottery_config.mask.rounds = "25%", 1
    result = train_rounds(lottery_config, tmp_path, one_device)
    assert int(final_state(tmp_path / "origin").step) == 3
    (tmp_path / "result.json").unlink()
    assert train_rounds(lottery_config, tmp_path, one_device)["loss"] == result["loss"]


@pytest.mark.slow
def test_round_zero_is_ordinary_training(lottery_config, tmp_path, one_device):
    lottery_config.mask.rounds = 1
    train_rounds(lottery_config, tmp_path / "rounds", one_device)
    train(lottery_config, tmp_path / "plain", one_device)
    assert trees_equal(final_state(tmp_path / "rounds" / "round0"), final_state(tmp_path / "plain"))


@pytest.mark.slow
def test_rewinding_to_the_start_is_the_original_lottery_ticket(lottery_config, tmp_path, one_device):
    lottery_config.mask.rewind, lottery_config.mask.rounds = "0 steps", 1
    train_rounds(lottery_config, tmp_path, one_device)
    assert int(final_state(tmp_path / "origin").step) == 0
    assert final_state(tmp_path).mask_vars.stats["hidden/kernel"].mean() == 0.5


def test_rewinding_beyond_the_end_is_told(lottery_config, tmp_path, one_device):
    lottery_config.mask.rewind = "13 steps"
    with pytest.raises(td.UserError, match=r"step 13 \(13 steps\) is beyond the end of the run, 12 steps"):
        train_rounds(lottery_config, tmp_path, one_device)


@pytest.mark.slow
def test_rounds_that_are_cut_go_on_in_the_same_bits(lottery_config, tmp_path, one_device):
    lottery_config.mask.rounds = 1
    train_rounds(lottery_config, tmp_path / "whole", one_device)
    batch, calls = Split.train_batch, []

    def dies_now_and_then(*arguments):
        calls.append(1)
        if len(calls) in (2, 9, 18):
            raise KeyboardInterrupt
        return batch(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Split, "train_batch", dies_now_and_then)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                train_rounds(lottery_config, tmp_path / "cut", one_device)
        train_rounds(lottery_config, tmp_path / "cut", one_device)
    for name in ("origin", "round0", "."):
        assert trees_equal(final_state(tmp_path / "whole" / name), final_state(tmp_path / "cut" / name))


def test_a_folder_of_another_run_raises_before_anything_is_trained(lottery_config, tiny_config, tmp_path, one_device):
    other = tiny_config.copy_and_resolve_references()
    other.seed = 9
    train(other, tmp_path, one_device)
    with pytest.raises(td.UserError, match="belongs to another config"):
        train_rounds(lottery_config, tmp_path, one_device)
    assert not (tmp_path / "origin").exists()


@pytest.mark.slow
def test_a_round_whose_end_is_lost_is_not_replaced_by_an_earlier_step(lottery_config, tmp_path, one_device):
    lottery_config.mask.rounds = 1
    train_rounds(lottery_config, tmp_path, one_device)
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "round0" / "checkpoints" / "12")
    with pytest.raises(td.UserError, match="round0 is of step .* of 12: delete its result.json"):
        train_rounds(lottery_config, tmp_path, one_device)


def test_tickets_are_drawn_from_the_kernels_that_the_run_names(lottery_config, tmp_path, one_device):
    lottery_config.kernels, lottery_config.mask.rounds = "hidden|logits", 1
    train_rounds(lottery_config, tmp_path, one_device)
    stats = final_state(tmp_path).mask_vars.stats
    assert {path: float(mask.mean()) for path, mask in stats.items()} == {"hidden/kernel": 0.5, "logits/kernel": 0.5}


def test_trap_what_is_stopped_at_the_end_of_a_round_begins_no_other(lottery_config, tmp_path, one_device, monkeypatch):
    saves = Checkpoints.save

    def saves_under_sigterm(checkpoints, step, state):
        saves(checkpoints, step, state)
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", saves_under_sigterm)
    with pytest.raises(Stopped, match="before round 1 of 2"):
        train_rounds(lottery_config, tmp_path, one_device)
    assert (tmp_path / "round0" / "result.json").exists() and not (tmp_path / "round1").exists()
