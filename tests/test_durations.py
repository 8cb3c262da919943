"""Durations in steps, epochs and examples, and those that are malformed."""

import pytest

import td
from td.train.durations import to_steps


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
