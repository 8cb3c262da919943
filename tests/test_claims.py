"""How claims are judged: golden verdicts, worked out by hand."""

import pytest

from td.reproduce.claims import Claim, Comparison, Measured, beats, judge, keeps, order


def seeds(*values, at=None):
    return Measured(tuple(map(float, values)), at)


def pair(mean, half, at=None):
    return seeds(mean - half, mean + half, at=at)


def verdict(claim, chance=10.0, **cells):
    """Judge a claim on columns `a`, `b`, ... at 50 %, and `a0`, ... at 0 %."""
    known = {(name[0], 0.0 if name.endswith("0") else 0.5): value for name, value in cells.items()}
    return judge(claim, known.get, chance).outcome


@pytest.mark.parametrize(
    ("left", "right", "by", "outcome"),
    [
        (seeds(60), seeds(50), 0, "holds"),
        (seeds(60), seeds(50), 10, "holds"),
        (seeds(60), seeds(50), 11, "fails"),
        (seeds(50), seeds(60), 0, "fails"),
        (seeds(50), seeds(50), 0, "fails"),
        (None, seeds(50), 0, "open"),
        (seeds(50), None, 0, "open"),
    ],
)
def test_single_seeds_are_judged_by_their_means(left, right, by, outcome):
    assert verdict(beats("a", "b", 0.5, by=by), a=left, b=right) == outcome


@pytest.mark.parametrize(
    ("left", "right", "by", "outcome"),
    [
        # Two seeds a side, 3 from their mean: standard error 4.243, 2 degrees of freedom, t = 4.303, so +- 18.25.
        (pair(68.2, 3), pair(50, 3), 0, "inconclusive"),
        (pair(68.3, 3), pair(50, 3), 0, "holds"),
        (pair(31.8, 3), pair(50, 3), 0, "inconclusive"),
        (pair(31.7, 3), pair(50, 3), 0, "fails"),
        (pair(78.2, 3), pair(50, 3), 10, "inconclusive"),
        (pair(78.3, 3), pair(50, 3), 10, "holds"),
        (pair(50.0, 3), pair(50, 3), 0, "inconclusive"),
        # Four seeds on either side: standard error 1.633, 6 degrees of freedom, t = 2.447, so +- 3.996.
        (seeds(48, 52, 48, 52), seeds(44, 48, 44, 48.1), 0, "inconclusive"),
        (seeds(48, 52, 48, 52), seeds(44, 48, 44, 47.9), 0, "holds"),
        # Only one side scatters: standard error 1.155, 3 degrees of freedom, t = 3.182, so +- 3.675.
        (seeds(48, 52, 48, 52), pair(46.4, 0), 0, "inconclusive"),
        (seeds(48, 52, 48, 52), pair(46.3, 0), 0, "holds"),
        # All seeds agree: the means decide, and a tie is a tie.
        (pair(50.1, 0), pair(50, 0), 0, "holds"),
        (pair(50.0, 0), pair(50, 0), 0, "fails"),
    ],
)
def test_a_margin_within_the_confidence_interval_is_inconclusive(left, right, by, outcome):
    assert verdict(beats("a", "b", 0.5, by=by), a=left, b=right) == outcome


@pytest.mark.parametrize(
    ("left", "right", "single"),
    [(seeds(60), pair(50, 3), True), (pair(60, 3), seeds(50), True), (pair(60, 0.1), pair(50, 0.1), False)],
)
def test_a_single_seed_on_a_side_is_marked_beside_the_verdict_of_the_values(left, right, single):
    cells = {("a", 0.5): left, ("b", 0.5): right}
    found = judge(beats("a", "b", 0.5), cells.get, 10)
    assert (found.outcome, found.single_seed) == ("holds", single)


def test_only_cells_that_decide_are_marked_as_single_seeds():
    cells = {("a", 0.5): pair(60, 0.1), ("b", 0.5): pair(80, 0.1), ("c", 0.5): seeds(20)}
    found = judge(order(["a", "b", "c"], 0.5), cells.get, 10)
    assert (found.outcome, found.single_seed) == ("fails", False)


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
    assert verdict(beats("a", "b", 0.5), chance, a=seeds(left), b=seeds(right)) == outcome


def test_a_network_that_stays_at_chance_keeps_nothing():
    at_chance = {"a": pair(10.2, 0.5, 50), "a0": pair(10.1, 0.5, 0)}
    assert verdict(keeps("a", 0.5, within=1), **at_chance) == "fails"


@pytest.mark.parametrize(
    ("left", "right", "outcome"),
    [
        (seeds(59.5, at=75), seeds(60, at=0), "holds"),
        (seeds(59.0, at=75), seeds(60, at=0), "holds"),
        (seeds(58.9, at=75), seeds(60, at=0), "fails"),
        (seeds(10.2, at=75), seeds(10.9, at=0), "fails"),
        (seeds(60, at=75), seeds(10.9, at=0), "not a test"),
        (seeds(60, at=75), seeds(11.1, at=0), "holds"),
        (seeds(60.0, at=75), seeds(60, at=75), "not a test"),
        (pair(60.0, 2, 75), pair(60, 2, 75), "not a test"),
        (seeds(10.0, at=75), seeds(10, at=75), "not a test"),
        # Nobody has measured the published networks.
        (seeds(60.0), seeds(60), "holds"),
    ],
)
def test_a_network_compared_with_itself_is_no_test(left, right, outcome):
    assert verdict(keeps("a", 0.5, within=1), a=left, a0=right) == outcome


def test_two_networks_of_one_sparsity_are_a_test():
    assert verdict(beats("a", "b", 0.5), a=seeds(60, at=50), b=seeds(50, at=50)) == "holds"


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "outcome"),
    [
        (seeds(90), seeds(80), seeds(70), seeds(60), "holds"),
        (seeds(90), seeds(80), seeds(85), seeds(60), "fails"),
        (seeds(90), seeds(80), None, seeds(60), "open"),
        (seeds(70), seeds(80), None, seeds(60), "fails"),
        (seeds(90), pair(81, 3), pair(80, 3), seeds(60), "inconclusive"),
        (seeds(90), pair(81, 3), pair(80, 3), None, "open"),
        (seeds(90), pair(81, 3), pair(80, 3), seeds(95), "fails"),
        # The last one may be at chance, the others not.
        (seeds(90), seeds(80), seeds(70), seeds(10), "holds"),
        (seeds(90), seeds(80), seeds(10.5), seeds(10), "fails"),
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
    cells = {"a": seeds(60, at=75), "a0": seeds(60, at=75)}
    assert verdict(Claim("", (itself, itself)), **cells) == "not a test"
    others = {"b": seeds(right, at=50)} if right else {}
    assert verdict(Claim("", (itself, Comparison(("a", 0.5), ("b", 0.5), 0))), **cells, **others) == outcome


def test_the_cells_are_shown_with_their_deviations():
    cells = {("a", 0.5): seeds(78.04, 84.04, at=89.4), ("b", 0.5): seeds(79.96)}
    assert judge(beats("a", "b", 0.5), cells.get, 10).detail == "81.0 ± 4.2 @89 against 80.0"
    assert judge(order(["b", "a", "c"], 0.5), cells.get, 10).detail == "80.0 > 81.0 ± 4.2 @89 > missing"


@pytest.mark.parametrize(
    ("left", "right", "outcome"),
    [
        (seeds(69.5, 89.5), seeds(70, 90), "holds"),
        (seeds(60, 100), seeds(70, 90), "inconclusive"),
        (seeds(68, 88), seeds(70, 90), "fails"),
    ],
)
def test_a_column_and_itself_are_compared_seed_by_seed(left, right, outcome):
    assert verdict(keeps("a", 0.5, within=1), a=left, a0=right) == outcome


def test_a_network_that_loses_nothing_keeps_all():
    same = Measured((50.0,))
    assert judge(keeps("a", 0.5, within=0), lambda cell: same, 10.0).outcome == "holds"
    assert judge(keeps("a", 0.5, within=0), lambda cell: Measured((50.0 - cell[1],)), 10.0).outcome == "fails"
