"""Compaction of drawn networks: `scripts/fuzz.py` draws more."""

import pytest
from fuzz_networks import problem_of

import td


@pytest.mark.parametrize("seed", [19, 18, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (158, 12, 20))])
def test_drawn_networks(seed):
    """Every operation of the grammar occurs."""
    assert problem_of(seed) is None


def test_a_wrong_compaction_is_found(monkeypatch):
    right = td.compact

    def compact(*arguments, **settings):
        small = right(*arguments, **settings)
        return small._replace(apply=lambda *arrays: [1.001 * output for output in small.apply(*arrays)])

    monkeypatch.setattr(td, "compact", compact)
    assert "output 0 of inputs (1, 5): 1.0e-03" in problem_of(3)
