"""Prune curves as files: what is asked for, what is written and read back, what is compared."""

import csv
import json
import shutil

import jax
import pytest
from conftest import load_config

import td
from td.evaluate.curve_files import compare, curve_path, read_curve, write_curve
from td.evaluate.options import Options, as_trained
from td.evaluate.prune_curve import prune_curve
from td.train.devices import Execution
from td.train.experiment import load_trained
from td.train.loop import train


@pytest.fixture
def targeted(finished, tmp_path):
    """A dense network trained with targeted dropout of weights, in a folder that may be written to."""
    return shutil.copytree(finished[1], tmp_path / "targeted")


@pytest.mark.slow
def test_files_are_written_and_read_back(trained):
    text = write_curve(trained, "0,0.5", Options(recalibrate_batch_norm=True, recalibration_batches=1))
    stem = trained / "prune_curve-weight-dense"
    for suffix in (".csv", ".png", ".pdf", ".json"):
        assert stem.with_suffix(suffix).stat().st_size > 100
    assert str(stem.with_suffix(".png")) in text and "recalibrated %" in text
    label, granularity, mode, rows = read_curve(stem.with_suffix(".json"))
    assert (label, granularity, mode) == ("targeted weight .66/.75", "weight", "dense")
    assert [row.prune_rate for row in rows] == [0.0, 0.5]
    with stem.with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["accuracy"]) for line in lines] == [row.accuracy for row in rows]
    assert {"hardware", "date", "commit"} <= set(json.loads(stem.with_suffix(".json").read_text()))


@pytest.mark.parametrize("mask", ["targeted", "group_lasso"])
def test_granularity_follows_the_config(tmp_path, mask, quick_pictures):
    config = load_config("mnist_mlp", f"mask={mask},granularity=unit,smoke")
    train(config, tmp_path, Execution(jax.devices()[:1]))
    write_curve(tmp_path, "0.5")
    assert (tmp_path / "prune_curve-unit-dense.csv").exists()


def test_comparison_keeps_every_curve_and_refuses_what_does_not_fit(targeted, plain, tmp_path, quick_pictures):
    write_curve(targeted, "0,0.5")
    write_curve(plain, "0,0.5")
    shutil.copytree(targeted, tmp_path / "seed1")
    paths = [folder / "prune_curve-weight-dense.json" for folder in (targeted, plain, tmp_path / "seed1")]
    text = compare(paths, tmp_path / "out.png")
    header = text.splitlines()[2]
    assert all(name in header for name in ("targeted weight .5/.75", "no dropout", "(seed1)"))
    assert (tmp_path / "out.md").exists() and (tmp_path / "out.pdf").exists()
    compare(paths, tmp_path / "drop-0.5")
    assert (tmp_path / "drop-0.5.png").exists() and (tmp_path / "drop-0.5.md").exists()
    assert compare([targeted, plain, tmp_path / "seed1"], tmp_path / "out.png") == text
    with pytest.raises(td.UserError, match="give each once"):
        compare([*paths, paths[-1]], tmp_path / "out.png")
    with pytest.raises(td.UserError, match="is not a prune curve"):
        compare([targeted / "result.json"], tmp_path / "out.png")
    write_curve(plain, "0,0.6")
    lines = [line.split() for line in compare(paths, tmp_path / "out.png").splitlines()]
    cells = {line[0]: len(line) for line in lines if line and line[0] in ("0", "50", "60")}
    assert cells == {"0": 5, "50": 4, "60": 3}  # a curve without this rate leaves its cell empty


def test_a_folder_without_a_curve_or_with_several_is_no_curve(tmp_path):
    with pytest.raises(td.UserError, match="has 0 prune curves"):
        compare([tmp_path], tmp_path / "out.png")
    for name in ("prune_curve-unit-dense.json", "prune_curve-weight-dense.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(td.UserError, match="2 prune curves.*unit-dense.json, .*weight-dense.json"):
        compare([tmp_path], tmp_path / "out.png")


def test_an_unfinished_run_says_so(targeted, quick_pictures):
    config = json.loads((targeted / "config.json").read_text()) | {"duration": "15 steps"}
    (targeted / "config.json").write_text(json.dumps(config))
    assert "not the end: this is step 12 of 15" in write_curve(targeted, "0.5")


def test_a_curve_that_is_replaced_and_a_folder_that_cannot_be_written_to_are_told(
    targeted, quick_pictures, caplog, monkeypatch
):
    write_curve(targeted, "0,0.25,0.5")
    assert "is replaced" not in caplog.text
    write_curve(targeted, "0.5,0.75")
    assert "prune_curve-weight-dense.json is replaced, which had 0, 0.25\n" in caplog.text
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(td.UserError, match="cannot write to .*, where its curve goes"):
        write_curve(targeted, "0.5")


def test_scopes_reach_the_curve_and_its_files(targeted, quick_pictures):
    rows = prune_curve(*load_trained(targeted), [0.5, 0.9], Options(scope="2:4"))
    assert [row.sparsity for row in rows] == [0.5, 0.5]
    write_curve(targeted, "0.5", Options(criterion="taylor", scope="global", criterion_examples=50))
    content = json.loads((targeted / "prune_curve-weight-dense-taylor-global.json").read_text())
    assert content["criterion"] == "taylor" and content["scope"] == "global"
    assert content["method"] == "targeted weight .5/.75, taylor, global"
    write_curve(targeted, "0.5", Options(scope="2:4"))
    assert (targeted / "prune_curve-weight-dense-2of4.csv").exists()
    config = load_trained(targeted)[0].config
    by_layer = curve_path(targeted, as_trained(Options(rates_by="erk"), config), config)
    assert by_layer.name == "prune_curve-weight-dense-erk-flops.json"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"criterion": "tailor"}, "did you mean 'taylor'"),
        ({"scope": "globl"}, "did you mean 'global'"),
        ({"scope": "2:4", "granularity": "unit"}, "is for weights"),
        ({"criterion_examples": 0}, "criterion_examples=0 is out of range"),
        ({"recalibration_batches": 0}, "recalibration_batches=0 is out of range"),
    ],
)
def test_options_that_say_nothing_are_told(finished, options, words):
    with pytest.raises(td.UserError, match=words):
        write_curve(finished[1], "0.5", Options(**options))


@pytest.mark.slow
def test_a_run_evaluated_without_its_targets_is_scored_so(plain, tmp_path):
    train(load_config("mnist_mlp", "mask=xtreme,smoke"), tmp_path, Execution(jax.devices()[:1]))
    write_curve(tmp_path, "0")
    content = json.loads((tmp_path / "prune_curve-weight-prune_targets.json").read_text())
    assert content["rows"][0]["sparsity"] == pytest.approx(1 - 3 / 64)


@pytest.mark.slow
def test_stochastic_mode_of_local_noise_draws_the_weights(tmp_path):
    train(load_config("mnist_mlp", "mask=variational,smoke"), tmp_path, Execution(jax.devices()[:1]))
    write_curve(tmp_path, "0,0.5", Options(mode="stochastic"))
    write_curve(tmp_path, "0,0.5", Options(mode="dense"))
    drawn, dense = (
        json.loads((tmp_path / f"prune_curve-weight-{mode}.json").read_text())["rows"]
        for mode in ("stochastic", "dense")
    )
    assert drawn[0]["loss"] != dense[0]["loss"] and drawn[1]["sparsity"] >= 0.49


def test_a_run_of_another_version_is_told(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "old")
    config = json.loads((plain / "config.json").read_text())
    del config["optim"]["label_smoothing"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    with pytest.raises(td.UserError, match="no optim.label_smoothing"):
        write_curve(tmp_path / "old", "0.5")
