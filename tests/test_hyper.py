"""Settings of a sweep combine as in big_vision and scenic."""

import pytest

from td.errors import UserError
from td.sweep import hyper


def test_a_get_hyper_in_the_style_of_big_vision_runs_unmodified():
    def get_hyper(h):
        def fix(**settings):
            return h.product([h.fixed(f"config.{name}", value, length=1) for name, value in settings.items()])

        return h.product(
            [
                h.chainit([fix(method="a"), h.zipit([fix(method="b"), h.sweep("config.mask.cost", [1.0, 3.0])])]),
                h.sweep("config.seed", range(2)),
                h.product([]),
            ]
        )

    found = [(s["method"], s.get("mask.cost"), s["seed"]) for s in get_hyper(hyper)]
    assert found == [("a", None, 0), ("a", None, 1), ("b", 1.0, 0), ("b", 1.0, 1), ("b", 3.0, 0), ("b", 3.0, 1)]


def test_a_sweep_without_settings_is_one_point():
    assert hyper.product([]) == [{}] and hyper.zipit([]) == []


def test_zipit_of_different_lengths_raises():
    with pytest.raises(UserError, match=r"\[2, 3\] entries"):
        hyper.zipit([hyper.sweep("a", [1, 2]), hyper.sweep("b", [1, 2, 3])])
