"""Prune rates as written on a command line."""

import pytest

import td
from td.evaluate.options import parse_rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("0:0.9:0.1", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("0.5", [0.5]),
        ("0.9,0.5,0.99", [0.9, 0.5, 0.99]),
        ("0:1:0.25", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_rates(text, rates):
    assert parse_rates(text) == rates


@pytest.mark.parametrize("text", ["", "a", "0:0.9", "0:0.9:0", "0.9:0:0.1", "0:0.9:0.1:2", "0,,1", "nan:1:0.1"])
def test_malformed_rates_are_told(text):
    with pytest.raises(td.UserError, match="malformed"):
        parse_rates(text)


def test_both_ends_are_included_or_it_is_an_error():
    with pytest.raises(td.UserError, match=r"end at 0\.9, not at 0\.95"):
        parse_rates("0:0.95:0.1")


@pytest.mark.parametrize("text", ["1.5", "-0.1,0.5", "0:2:0.5"])
def test_rates_out_of_range_are_told(text):
    with pytest.raises(td.UserError, match="out of range"):
        parse_rates(text)
