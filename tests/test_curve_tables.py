"""Tables and pictures of prune curves."""

import pytest
from PIL import Image

from td.evaluate import curve_tables as tables
from td.evaluate import plots
from td.evaluate.prune_curve import Row


def test_more_curves_than_colours_are_all_drawn(monkeypatch, tmp_path):
    drawn = []
    panel = plots._panel
    monkeypatch.setattr(plots, "_panel", lambda axis, *rest: panel(axis, *rest) or drawn.extend(axis.get_lines()))
    plots.plot({"nine": {str(i): [Row(0.0, 0.0, 0.1, 0.5, 10)] for i in range(9)}}, tmp_path / "nine.png")
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 9


def test_picture_has_both_panels(tmp_path):
    rows = [Row(rate, rate, 0.1, 1 - rate, 10, 0.1, 1 - rate / 2) for rate in (0.0, 0.5, 0.9)]
    plots.plot({"weights": {"a": rows, "b": rows}, "units": {"a": rows}}, tmp_path / "picture.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.pdf", "picture.png"]
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.mode == "P"


def test_the_legend_explains_what_is_in_a_table():
    rows = [Row(0.5, 0.49, 0.1, 0.48, 10, 0.1, 0.9)]
    assert "as trained -> with BatchNorm recalibrated" in tables.legend(tables.comparison({"a": rows}))
    assert "->" not in tables.legend(tables.comparison({"a": [Row(0.5, 0.49, 0.1, 0.48, 10)]}))


def test_many_curves_stand_in_rows():
    curves = {
        f"method {i}": [Row(r, max(r, i / 10), 0.1, 1 - r / 2, 10, intrinsic_sparsity=i / 10) for r in (0.0, 0.5)]
        for i in range(7)
    }
    lines = tables.comparison(curves).splitlines()
    assert len(lines) == 2 + 7 and len({len(line) for line in lines}) == 1
    assert lines[0].split("  ")[-1].strip() == "50 % pruned"
    assert lines[-1].split() == ["method", "6", "60.0", "100.0", "@60", "75.0", "@60"]


def test_tables_align_and_say_what_is_missing():
    rows = [Row(0.0, 0.0, 0.123, 1.0, 10), Row(0.9, 0.8999, 10.5, 0.098, 10)]
    lines = tables.table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1 and "recalibrated" not in lines[0]
    assert "9.80" in lines[-1] and "89.99" in lines[-1]


def test_curves_side_by_side_show_what_recalibration_changes():
    curves = {"none": [Row(0.5, 0.49, 0.1, 0.48, 10, 0.1, 0.9)], "td": [Row(0.5, 0.5, 0, 0.99, 10)]}
    lines = [line.split() for line in tables.comparison(curves).splitlines()]
    assert lines[0] == ["pruned", "%", "sparsity", "%", "none", "td"]
    assert lines[2] == ["50", "49.0-50.0", "48.0->90.0", "99.0"]


def test_reconstructed_networks_follow_in_a_cell_a_table_and_a_picture(monkeypatch, tmp_path):
    more = {"reconstructed_accuracy": 0.97, "reconstructed_recalibrated_accuracy": 0.95}
    rows = [Row(0.5, 0.5, 0.1, 0.48, 10, 0.1, 0.9, **more)]
    assert "48.0->90.0; 97.0->95.0" in tables.comparison({"a": rows})
    assert "semicolon" in tables.legend(tables.comparison({"a": rows}))
    assert "reconstructed and recalibrated %" in tables.table(rows)
    drawn, panel = [], plots._panel
    monkeypatch.setattr(plots, "_panel", lambda axis, *rest: panel(axis, *rest) or drawn.extend(axis.get_lines()))
    plots.plot({"weights": {"a": rows}}, tmp_path / "picture.png")
    assert [line.get_ydata()[0] for line in drawn if len(line.get_ydata())] == pytest.approx([48, 90, 97])


def test_costs_have_a_line_for_the_whole_network():
    costs = {"parameters": 7146, "flops": 147888, "milliseconds_1": 0.25, "milliseconds_128": 2.8}
    costs |= {"uncompacted_milliseconds_1": 0.27, "uncompacted_milliseconds_128": 3.4}
    row = Row(0.5, 0.5, 0.1, 0.99, 397, compressed_bytes=27468, deviation=2.7e-7, **costs)
    whole, small = (line.split() for line in tables.cost_table({"targeted": [row]}).splitlines()[2:])
    assert whole == ["uncompacted", "0.270", "3.400"]
    assert small == ["50", "99.0", "7,146", "147,888", "0.250", "2.800", "27.5", "3e-07"]


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        (
            {"name": "targeted", "granularity": "unit", "drop_rate": 0.5, "target_proportion": 0.75},
            "targeted unit .5/.75",
        ),
        ({"name": "l0", "granularity": "weight", "cost": 0.1, "examples": 50_000}, "l0 weight cost 0.1"),
        ({"name": "none"}, "no dropout"),
    ],
)
def test_methods_are_named_in_words(mask, name):
    assert tables.label(mask) == name
