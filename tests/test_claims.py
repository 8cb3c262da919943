"""How claims are judged: golden verdicts, worked out by hand."""

import pytest

from td.reproduce.claims import Claim, Comparison, Measured, beats, judge, keeps, order


def verdict(claim, chance=10.0, **cells):
    """Judge a claim on columns `a`, `b`, ... at 50 %, and `a0`, ... at 0 %."""
    known = {(name[0], 0.0 if name.endswith("0") else 0.5): value for name, value in cells.items()}
    return judge(claim, known.get, chance).outcome


@pytest.mark.parametrize(
    ("left", "right", "by", "outcome"),
    [
        (Measured(60), Measured(50), 0, "holds"),
        (Measured(60), Measured(50), 10, "holds"),
        (Measured(60), Measured(50), 11, "fails"),
        (Measured(50), Measured(60), 0, "fails"),
        (Measured(50), Measured(50), 0, "fails"),
        (None, Measured(50), 0, "open"),
        (Measured(50), None, 0, "open"),
    ],
)
def test_single_seeds_are_judged_by_their_means(left, right, by, outcome):
    assert verdict(beats("a", "b", 0.5, by=by), a=left, b=right) == outcome


@pytest.mark.parametrize(
    ("left", "right", "by", "outcome"),
    [
        # The deviation of the difference is 5, the root of 3 * 3 + 4 * 4.
        (Measured(54.9, 3), Measured(50, 4), 0, "not resolved"),
        (Measured(55.0, 3), Measured(50, 4), 0, "holds"),
        (Measured(45.1, 3), Measured(50, 4), 0, "not resolved"),
        (Measured(45.0, 3), Measured(50, 4), 0, "fails"),
        (Measured(64.9, 3), Measured(50, 4), 10, "not resolved"),
        (Measured(65.0, 3), Measured(50, 4), 10, "holds"),
        (Measured(55.1, 3), Measured(50, 4), 10, "not resolved"),
        (Measured(50.0, 3), Measured(50, 4), 0, "not resolved"),
        # Where one side has a single seed there is no deviation of the difference.
        (Measured(54.9, 3), Measured(50), 0, "holds"),
        (Measured(54.9), Measured(50, 4), 0, "holds"),
        # All seeds agree: nothing is left to resolve, and a tie is a tie.
        (Measured(50.1, 0), Measured(50, 0), 0, "holds"),
        (Measured(50.0, 0), Measured(50, 0), 0, "fails"),
    ],
)
def test_a_difference_within_its_deviation_is_not_resolved(left, right, by, outcome):
    assert verdict(beats("a", "b", 0.5, by=by), a=left, b=right) == outcome


@pytest.mark.parametrize(
    ("chance", "left", "right", "outcome"),
    [
        (10.0, 10.0, 10.0, "fails"),
        (10.0, 11.0, 9.0, "fails"),
        (10.0, 11.1, 9.0, "holds"),
        (10.0, 9.0, 8.0, "fails"),
        (1.0, 2.0, 1.0, "fails"),
        (1.0, 2.1, 1.0, "holds"),
        (0.1, 1.1, 0.1, "fails"),
        (0.1, 1.2, 0.1, "holds"),
        (0.0, 1.0, 0.0, "fails"),
        (0.0, 1.1, 0.0, "holds"),
    ],
)
def test_a_network_at_chance_is_better_than_none(chance, left, right, outcome):
    assert verdict(beats("a", "b", 0.5), chance, a=Measured(left), b=Measured(right)) == outcome


def test_a_network_that_stays_at_chance_keeps_nothing():
    at_chance = {"a": Measured(10.2, 0.5, 50), "a0": Measured(10.1, 0.5, 0)}
    assert verdict(keeps("a", 0.5, within=1), **at_chance) == "fails"


@pytest.mark.parametrize(
    ("left", "right", "outcome"),
    [
        (Measured(59.5, None, 75), Measured(60, None, 0), "holds"),
        (Measured(59.0, None, 75), Measured(60, None, 0), "holds"),
        (Measured(58.9, None, 75), Measured(60, None, 0), "fails"),
        (Measured(58.9, 1, 75), Measured(60, 1, 0), "not resolved"),
        (Measured(60.0, None, 75), Measured(60, None, 75), "not a test"),
        (Measured(60.0, 2, 75), Measured(60, 2, 75), "not a test"),
        (Measured(10.0, None, 75), Measured(10, None, 75), "not a test"),
        # Nobody has measured the published networks.
        (Measured(60.0), Measured(60), "holds"),
    ],
)
def test_a_network_compared_with_itself_is_no_test(left, right, outcome):
    assert verdict(keeps("a", 0.5, within=1), a=left, a0=right) == outcome


def test_two_networks_of_one_sparsity_are_a_test():
    assert verdict(beats("a", "b", 0.5), a=Measured(60, None, 50), b=Measured(50, None, 50)) == "holds"


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "outcome"),
    [
        (Measured(90), Measured(80), Measured(70), Measured(60), "holds"),
        (Measured(90), Measured(80), Measured(85), Measured(60), "fails"),
        (Measured(90), Measured(80), None, Measured(60), "open"),
        (Measured(70), Measured(80), None, Measured(60), "fails"),
        (Measured(90), Measured(81, 3), Measured(80, 3), Measured(60), "not resolved"),
        (Measured(90), Measured(81, 3), Measured(80, 3), None, "open"),
        (Measured(90), Measured(81, 3), Measured(80, 3), Measured(95), "fails"),
        # The last one may be at chance, the others not.
        (Measured(90), Measured(80), Measured(70), Measured(10), "holds"),
        (Measured(90), Measured(80), Measured(10.5), Measured(10), "fails"),
    ],
)
def test_the_worst_comparison_decides(a, b, c, d, outcome):
    cells = {name: value for name, value in {"a": a, "b": b, "c": c, "d": d}.items() if value}
    assert verdict(order(["a", "b", "c", "d"], 0.5), **cells) == outcome


@pytest.mark.parametrize(
    ("right", "outcome"), [(50, "holds"), (70, "fails"), (None, "open")], ids=["holds", "fails", "open"]
)
def test_what_is_no_test_leaves_the_verdict_to_the_others(right, outcome):
    itself = Comparison(("a", 0.5), ("a", 0.0), -1)
    cells = {"a": Measured(60, None, 75), "a0": Measured(60, None, 75)}
    assert verdict(Claim("", (itself, itself)), **cells) == "not a test"
    others = {"b": Measured(right, None, 50)} if right else {}
    assert verdict(Claim("", (itself, Comparison(("a", 0.5), ("b", 0.5), 0))), **cells, **others) == outcome


def test_the_cells_are_shown_with_their_deviations():
    cells = {("a", 0.5): Measured(81.04, 3.0), ("b", 0.5): Measured(79.96)}
    assert judge(beats("a", "b", 0.5), cells.get, 10).detail == "81.0 ± 3.0 against 80.0"
    assert judge(order(["b", "a", "c"], 0.5), cells.get, 10).detail == "80.0 > 81.0 ± 3.0 > missing"
