"""Prune curves of compacted networks: sizes worked out by hand, files, pictures, and what is refused."""

import csv
import json
import logging
import shutil

import jax
import pytest
from conftest import trees_equal

import td
from td.evaluate import compacted as module
from td.evaluate import plots
from td.evaluate.curve_files import compare, read_curve, write_curve
from td.evaluate.curve_tables import COST_AXES
from td.evaluate.options import Options
from td.evaluate.prune_curve import Row, prune_curve, prune_curves
from td.train.experiment import load_trained

COMPACT = Options("unit", compact=True, timing_repeats=1)


def costly(rate, milliseconds=1.0, **others):
    """A row with costs."""
    costs = {"parameters": 1000, "flops": 2000, "milliseconds_1": milliseconds, "milliseconds_128": 9 * milliseconds}
    costs |= {"uncompacted_milliseconds_1": 4.0, "uncompacted_milliseconds_128": 36.0}
    return Row(rate, rate, 0.1, 1 - rate / 2, 10, **{**costs, "compressed_bytes": 4000, "deviation": 1e-7, **others})


def test_parameters_and_flops_are_those_of_the_layers_that_are_left(plain):
    whole, half = prune_curve(*load_trained(plain), [0.0, 0.5], COMPACT)
    # 64 pixels, 10 hidden units of which 5 stay, 10 classes.
    assert (whole.parameters, half.parameters) == (64 * 10 + 10 + 10 * 10 + 10, 64 * 5 + 5 + 5 * 10 + 10)
    assert (whole.flops, half.flops) == (2 * (64 * 10 + 10 * 10), 2 * (64 * 5 + 5 * 10))
    assert 4 * half.parameters * 0.8 < half.compressed_bytes < whole.compressed_bytes < 4 * whole.parameters + 1000
    assert all(row.milliseconds_1 > 0 and row.milliseconds_128 > 0 and row.deviation < 1e-6 for row in (whole, half))


def test_pruned_weights_take_fewer_bytes_in_equal_shapes(plain):
    whole, pruned = prune_curve(*load_trained(plain), [0.0, 0.7], COMPACT._replace(granularity="weight"))
    assert pruned.parameters > 0.95 * whole.parameters  # a pixel that no unit looks at goes
    assert pruned.compressed_bytes < 0.7 * whole.compressed_bytes


def test_rounded_widths_are_multiples(plain):
    (row,) = prune_curve(*load_trained(plain), [0.5], COMPACT._replace(round_to=4))
    assert row.parameters == 64 * 8 + 8 + 8 * 10 + 10


def test_several_curves_are_timed_in_the_same_turns(plain, monkeypatch):
    timed, timing = [], module.side_by_side
    monkeypatch.setattr(module, "side_by_side", lambda cases, *rest: timed.append(len(cases)) or timing(cases, *rest))
    first, second = prune_curves([load_trained(plain)] * 2, [0.0, 0.5], COMPACT)
    assert timed == [6, 6]  # of each run two compacted networks and the whole one
    assert [row.parameters for row in first] == [row.parameters for row in second] == [760, 385]


@pytest.mark.slow
def test_recalibrated_networks_are_compacted_and_another_output_is_an_error(trained, monkeypatch):
    run, state = load_trained(trained)
    seen, compact = [], module.compact

    def wrong(apply, variables, *inputs, **settings):
        seen.append(variables)
        small = compact(apply, variables, *inputs, **settings)
        return small._replace(apply=lambda params, *inputs: 1.01 * small.apply(params, *inputs))

    monkeypatch.setattr(module, "compact", wrong)
    options = COMPACT._replace(batch_size=100, recalibrate_batch_norm=True, recalibration_batches=1)
    with pytest.raises(td.UserError, match=r"at prune rate 0\.5 .* deviate by 1\.0e-02 .* more than 0\.0001"):
        prune_curve(run, state, [0.5], options)
    (variables,) = seen
    assert jax.tree.structure(variables["batch_stats"]) == jax.tree.structure(state.batch_stats)
    assert not trees_equal(variables["batch_stats"], state.batch_stats)


def test_files_keep_the_costs_and_a_curve_without_them_stays_readable(plain, tmp_path, quick_pictures):
    folder = shutil.copytree(plain, tmp_path / "run")
    text = write_curve(folder, "0,0.5", COMPACT)
    assert "ms: medians of 1 calls" in text and " cores" in text
    lines = [line for line in text.split("compacted\n\n")[1].splitlines() if line][:5]
    assert len({len(line) for line in lines if "e-" in line or "---" in line}) == 1 and lines[-1].split()[2] == "385"
    path = folder / "prune_curve-unit-dense.json"
    rows = read_curve(path).rows
    assert [row.parameters for row in rows] == [760, 385]
    with path.with_suffix(".csv").open() as file:
        assert [float(line["milliseconds_128"]) for line in csv.DictReader(file)] == [r.milliseconds_128 for r in rows]
    compare([path], tmp_path / "out.png", "flops")
    assert "760" in (tmp_path / "out.md").read_text() and "ms, batch 128" in (tmp_path / "out.md").read_text()

    content = json.loads(path.read_text())
    content["rows"] = [dict(list(row.items())[:11]) for row in content["rows"]]
    path.write_text(json.dumps(content))
    assert read_curve(path).rows[1].parameters is None
    compare([path], tmp_path / "out.png")
    with pytest.raises(td.UserError, match=f"no bytes: .*--workdir={folder} --granularity=unit --mode=dense --compact"):
        compare([path], tmp_path / "out.png", "bytes")
    with pytest.raises(td.UserError, match="did you mean 'latency'"):
        compare([path], tmp_path / "out.png", "latencie")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compact": True, "mode": "stochastic"}, "give --mode=dense"),
        ({"compact": True, "round_to": 0}, "round_to=0 is out of range"),
    ],
)
def test_what_cannot_be_compacted_is_refused(finished, options, words):
    with pytest.raises(td.UserError, match=words):
        write_curve(finished[1], "0.5", Options(**options))


def test_accuracy_is_drawn_against_what_was_asked_for(tmp_path, monkeypatch, quick_pictures):
    drawn = {}
    panel = plots._panel
    monkeypatch.setattr(plots, "_panel", lambda axis, *rest: panel(axis, *rest) or drawn.setdefault(rest[0], axis))
    rows = [costly(0.0, 3.0), costly(0.5, 2.0)]
    panels = {"by rate": {"a": rows}, "by time": {"a": rows}, "by bytes": {"a": rows}, "fourth": {"a": rows}}
    against = {"by time": COST_AXES["latency"], "by bytes": COST_AXES["bytes"]}
    plots.plot(panels, tmp_path / "picture.png", against)
    xs = {title: list(axis.get_lines()[0].get_xdata()) for title, axis in drawn.items()}
    assert xs == {"by rate": [0, 50], "by time": [3, 2], "by bytes": [4000, 4000], "fourth": [0, 50]}
    assert list(drawn["by time"].get_lines()[1].get_xdata()) == [4, 4]
    assert "ms" in drawn["by time"].get_xlabel() and drawn["by time"].get_xlim()[0] == 0


def test_curves_that_were_timed_on_a_busier_machine_are_told(tmp_path, caplog, quick_pictures):
    paths = []
    for name, milliseconds in (("idle", 1.0), ("busy", 2.0)):
        paths.append(tmp_path / f"{name}.json")
        rows = [costly(rate, milliseconds)._asdict() for rate in (0.0, 0.5)]
        paths[-1].write_text(json.dumps({"method": name, "granularity": "unit", "mode": "dense", "rows": rows}))
    with caplog.at_level(logging.WARNING, "td.evaluate.curve_files"):
        compare(paths, tmp_path / "out.png", "parameters")
        assert not caplog.records
        compare(paths, tmp_path / "out.png", "latency")
    assert "took 9 to 18 ms at batch 128" in caplog.text
