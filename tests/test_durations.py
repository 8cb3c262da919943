"""Durations in steps, epochs, examples and percent of the run, and malformed ones."""

import pytest

import td
from td.train.config import expand_percent, skeleton, to_steps


@pytest.mark.parametrize(
    ("duration", "steps"),
    [("256 epochs", 100_000), ("1 epoch", 391), ("0.5 epochs", 195), ("10 steps", 10), ("1280 examples", 10)],
)
def test_durations(duration, steps):
    assert to_steps(duration, 50_000, 128) == steps


@pytest.mark.parametrize("duration", ["10", "10 epoch s", "3 days", "-1 epochs", "", "1e3 steps"])
def test_malformed_durations_are_told(duration):
    with pytest.raises(td.UserError, match="write a number and steps, epochs or examples"):
        to_steps(duration, 100, 10)


def test_percent_are_of_the_run_as_long_as_it_is():
    config = skeleton()
    config.optim.update(warmup="12.5 %", boundaries=("50%", "3 steps"))
    for duration, warmup, boundary in (("16 epochs", "2 epochs", "8 epochs"), ("100 steps", "12.5 steps", "50 steps")):
        config.duration = duration
        expanded = expand_percent(config)
        assert (expanded.optim.warmup, *expanded.optim.boundaries) == (warmup, boundary, "3 steps")
        assert expanded.kernels == config.kernels and expanded.duration == duration


def test_the_run_itself_has_no_length_in_percent():
    config = skeleton()
    config.duration = "50%"
    with pytest.raises(td.UserError, match="duration '50%' is not understood"):
        expand_percent(config)
