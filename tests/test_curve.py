"""Prune curves: one compile, measured sparsity, the three modes, recalibration, files, reports."""

import csv
import json
import runpy
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, trees_equal

import td
from td import curve, data, report
from td.curve import Row, make_recalibration, make_view, prune_curve
from td.curve_files import compare, read_curve, write_curve
from td.experiment import build, load_trained
from td.rates import parse_rates
from td.train import train


def load_config(name, arguments):
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](arguments)
    config.every.checkpoint = config.every.evaluation = "6 steps"
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    train(load_config("digits_resnet", "mask=targeted,smoke"), folder, jax.devices()[:1])
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlp")
    train(load_config("mnist_mlp", "mask=none,smoke"), folder, jax.devices()[:1])
    return folder


def test_one_compile_for_all_rates_and_every_test_image_once(trained, monkeypatch):
    views, steps = [], []
    make_step = curve.make_eval_step
    monkeypatch.setattr(curve, "make_eval_step", lambda *a: steps.append(make_step(*a)) or steps[-1])
    jit = jax.jit
    monkeypatch.setattr(jax, "jit", lambda f, **options: views.append(jit(f, **options)) or views[-1])
    rows = prune_curve(load_trained(trained)[1], [0.0, 0.3, 0.6, 0.9], batch_size=100)
    assert [row.examples for row in rows] == [397] * 4
    assert {compiled._cache_size() for compiled in [*views, *steps]} == {1}


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_rows_carry_the_measured_sparsity(trained, granularity):
    run = load_trained(trained)[1]
    rows = prune_curve(run, [0.0, 0.5, 1.0], granularity=granularity)
    assert [row.prune_rate for row in rows] == [0.0, 0.5, 1.0]
    assert [round(row.sparsity, 2) for row in rows] == [0.0, 0.5, 1.0]


def test_rate_zero_is_the_trained_network(trained):
    result = json.loads((trained / "result.json").read_text())
    row = prune_curve(load_trained(trained)[1], [0.0])[0]
    assert row.accuracy == result["accuracy"] and row.loss == pytest.approx(result["loss"], rel=1e-5)


def test_the_network_that_is_scored_is_pruned_by_magnitude(trained):
    run = load_trained(trained)[1]
    params, _ = make_view(run, "weight", "dense")(jnp.float32(0.5), jax.random.key(0))
    expected = td.apply_mask(run.state.params, td.prune_mask(run.state.params, 0.5))
    assert trees_equal(params, expected)


def test_mode_prune_targets_prunes_no_less_than_the_targets(trained):
    run = load_trained(trained, {"evaluation": "prune_targets"})[1]
    rows = prune_curve(run, [0.0, 0.5, 0.9], mode="prune_targets")
    assert [row.sparsity for row in rows] == pytest.approx([0.75, 0.75, 0.89], abs=0.005)
    assert rows[0].accuracy == rows[1].accuracy and rows[0].loss == rows[1].loss


def test_mode_stochastic_drops_as_training_does_and_depends_on_its_seed(trained):
    run = load_trained(trained)[1]
    rows = [prune_curve(run, [0.0], mode="stochastic", seed=seed)[0] for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert rows[0].sparsity == pytest.approx(0.75 * 0.66, abs=0.02)


def test_recalibration_is_the_mean_of_batch_statistics_and_changes_no_weight(trained):
    run = load_trained(trained)[1]
    before = jax.device_get(run.state)
    statistics = make_recalibration(run, 50, 3, 0)(lambda _: run.state.params)
    assert trees_equal(before, run.state)
    from td.data import standardize, train_batch

    stem = run.experiment.model.clone(batch_norm_momentum=0.0)
    means = []
    for i in range(3):
        images = standardize(train_batch(run.dataset.train, i, 50, 0).images)
        variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
        _, seen = stem.apply(variables, images, train=True, mutable=["batch_stats", "intermediates"])
        means.append(np.asarray(seen["batch_stats"]["stage1_unit1"]["norm1"]["mean"]))
    np.testing.assert_allclose(statistics["stage1_unit1"]["norm1"]["mean"], np.mean(means, axis=0), rtol=1e-5)


def test_recalibrated_numbers_stand_beside_the_raw_ones(trained):
    run = load_trained(trained)[1]
    raw, both = (prune_curve(run, [0.0, 0.5], recalibration_batches=n, batch_size=100) for n in (0, 2))
    assert [row[:5] for row in raw] == [row[:5] for row in both]
    assert all(row.recalibrated_accuracy is None for row in raw)
    assert all(0 <= row.recalibrated_accuracy <= 1 and row.recalibrated_loss > 0 for row in both)


def test_nothing_to_recalibrate_is_told(plain):
    with pytest.raises(td.UserError, match="no BatchNorm"):
        prune_curve(load_trained(plain)[1], [0.0], recalibration_batches=1)


def test_files_are_written_and_read_back(trained):
    text = write_curve(trained, "0,0.5", recalibration_batches=1)
    stem = trained / "prune_curve-weight-dense"
    for suffix in (".csv", ".png", ".pdf", ".json"):
        assert stem.with_suffix(suffix).stat().st_size > 100
    assert str(stem.with_suffix(".png")) in text and "accuracy %, recalibrated" in text
    label, granularity, mode, rows = read_curve(stem.with_suffix(".json"))
    assert (label, granularity, mode) == ("targeted weight .66/.75", "weight", "dense")
    assert [row.prune_rate for row in rows] == [0.0, 0.5]
    with stem.with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["accuracy"]) for line in lines] == [row.accuracy for row in rows]
    assert {"hardware", "date", "commit"} <= set(json.loads(stem.with_suffix(".json").read_text()))


@pytest.mark.parametrize("mask", ["targeted", "group_lasso"])
def test_granularity_follows_the_config(tmp_path, mask):
    config = load_config("mnist_mlp", f"mask={mask},granularity=unit,smoke")
    train(config, tmp_path, jax.devices()[:1])
    write_curve(tmp_path, "0.5")
    assert (tmp_path / "prune_curve-unit-dense.csv").exists()


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


@pytest.mark.parametrize("text", ["1.5", "-0.1,0.5", "0:2:0.5"])
def test_rates_out_of_range_are_told(text):
    with pytest.raises(td.UserError, match="out of range"):
        parse_rates(text)


def test_comparison_keeps_every_curve_and_refuses_what_does_not_fit(trained, plain, tmp_path):
    write_curve(trained, "0,0.5")
    write_curve(plain, "0,0.5")
    shutil.copytree(trained, tmp_path / "seed1")
    paths = [folder / "prune_curve-weight-dense.json" for folder in (trained, plain, tmp_path / "seed1")]
    text = compare(paths, tmp_path / "out.png")
    header = text.splitlines()[2]
    assert all(name in header for name in ("targeted weight .66/.75", "no dropout", "(seed1)"))
    assert (tmp_path / "out.md").exists() and (tmp_path / "out.pdf").exists()
    with pytest.raises(td.UserError, match="give each once"):
        compare([*paths, paths[-1]], tmp_path / "out.png")
    with pytest.raises(td.UserError, match="is no prune curve"):
        compare([trained / "result.json"], tmp_path / "out.png")
    write_curve(plain, "0,0.6")
    with pytest.raises(td.UserError, match="other prune rates"):
        compare(paths, tmp_path / "out.png")


def test_an_unfinished_run_says_so(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    config = json.loads((trained / "config.json").read_text()) | {"duration": "9 steps"}
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    assert "not the end: this is step 6 of 9" in write_curve(tmp_path / "copy", "0.5")


@pytest.mark.parametrize("criterion", ["l1", "random", "taylor", "fisher", "activation"])
def test_every_criterion_prunes_a_trained_network_by_its_own_scores(trained, criterion):
    run = load_trained(trained)[1]
    scores = curve.rank(run, "weight", criterion, examples=100)
    params, sparsity = make_view(run, "weight", "dense", "unit", scores)(jnp.float32(0.5), jax.random.key(0))
    assert float(sparsity) == pytest.approx(0.5, abs=0.01)
    kernel = np.asarray(params["stage2_unit1"]["conv1"]["kernel"]).reshape(-1, 8)
    score = np.asarray(scores["stage2_unit1/conv1/kernel"])
    for column, ranking in zip(kernel.T, score.T, strict=True):
        assert ranking[column == 0].max() <= ranking[column != 0].min()


def test_the_gradient_that_taylor_uses_is_that_of_the_trained_network(trained):
    run = load_trained(trained)[1]
    scores = curve.rank(run, "weight", "taylor", examples=50)
    from td.data import standardize, train_batch

    batch = train_batch(run.dataset.train, 0, 50, 0)

    def loss(params):
        variables = {"params": params, "batch_stats": run.state.batch_stats}
        logits = run.experiment.model.apply(variables, standardize(batch.images))
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(50), batch.labels])

    kernel = run.state.params["stage1_unit1"]["conv2"]["kernel"]
    gradient = jax.grad(loss)(run.state.params)["stage1_unit1"]["conv2"]["kernel"]
    expected = np.abs(np.asarray(kernel * gradient)).reshape(-1, 8)
    np.testing.assert_allclose(scores["stage1_unit1/conv2/kernel"], expected, rtol=1e-3, atol=1e-8)


def test_scopes_reach_the_curve_and_its_files(trained):
    rows = prune_curve(load_trained(trained)[1], [0.5, 0.9], scope="2:4")
    assert [row.sparsity for row in rows] == [0.5, 0.5]
    write_curve(trained, "0.5", criterion="taylor", scope="global", criterion_examples=50)
    content = json.loads((trained / "prune_curve-weight-dense-taylor-global.json").read_text())
    assert content["criterion"] == "taylor" and content["scope"] == "global"
    assert content["method"] == "targeted weight .66/.75, taylor, global"
    write_curve(trained, "0.5", scope="2:4")
    assert (trained / "prune_curve-weight-dense-2of4.csv").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"criterion": "tailor"}, "did you mean 'taylor'"),
        ({"scope": "globl"}, "did you mean 'global'"),
        ({"scope": "2:4", "granularity": "unit"}, "is of weights"),
        ({"criterion": "fisher", "criterion_examples": 10}, "criterion_examples=10 is out of range: give 50 or more"),
    ],
)
def test_bad_criteria_and_scopes_are_told(trained, options, words):
    with pytest.raises(td.UserError, match=words):
        write_curve(trained, "0.5", **options)


@pytest.mark.parametrize(("mask", "own"), [("gradual", 0.9), ("l0", None), ("variational", None), ("smallify", None)])
def test_intrinsic_sparsity_is_what_the_method_has_switched_off(tmp_path, mask, own):
    config = load_config("mnist_mlp", f"mask={mask},smoke")
    train(config, tmp_path, jax.devices()[:1])
    run = load_trained(tmp_path)[1]
    state = run.state
    shown, _ = run.experiment.transform.apply(state.params, state.mask_vars, key=None, step=state.step)
    zeros = float((np.asarray(shown["hidden"]["kernel"]) == 0).mean())
    rows = prune_curve(run, [0.0, 0.5, 0.95])
    assert [row.intrinsic_sparsity for row in rows] == [pytest.approx(zeros, abs=1e-6)] * 3
    assert rows[0].sparsity == pytest.approx(zeros, abs=1e-6) and rows[2].sparsity >= 60 / 64
    assert own is None or zeros == pytest.approx(own, abs=0.01)


def test_a_run_evaluated_without_its_targets_is_scored_so(plain, tmp_path):
    train(load_config("mnist_mlp", "mask=xtreme,smoke"), tmp_path, jax.devices()[:1])
    write_curve(tmp_path, "0")
    content = json.loads((tmp_path / "prune_curve-weight-prune_targets.json").read_text())
    assert content["rows"][0]["sparsity"] == pytest.approx(1 - 3 / 64)


def test_stochastic_mode_of_local_noise_draws_the_weights(tmp_path):
    train(load_config("mnist_mlp", "mask=variational,smoke"), tmp_path, jax.devices()[:1])
    write_curve(tmp_path, "0,0.5", mode="stochastic")
    write_curve(tmp_path, "0,0.5", mode="dense")
    drawn, dense = (
        json.loads((tmp_path / f"prune_curve-weight-{mode}.json").read_text())["rows"]
        for mode in ("stochastic", "dense")
    )
    assert drawn[0]["loss"] != dense[0]["loss"] and drawn[1]["sparsity"] >= 0.49


@pytest.mark.parametrize("mask", ["smallify", "l0"])
def test_trap_stochastic_mode_applies_the_method_once(tmp_path, mask):
    train(load_config("mnist_mlp", f"mask={mask},smoke"), tmp_path, jax.devices()[:1])
    run = load_trained(tmp_path)[1]
    state, key = run.state, jax.random.key(5)
    drawn, _ = make_view(run, "weight", "stochastic")(jnp.float32(0.0), key)
    expected, _ = run.experiment.transform.apply(state.params, state.mask_vars, key=key, step=state.step)
    np.testing.assert_allclose(drawn["hidden"]["kernel"], expected["hidden"]["kernel"], rtol=1e-6)


def test_a_network_with_dropout_of_activations_is_recalibrated_without_it():
    statistics = []
    for dropout in (0.0, 0.3):
        config = load_config("cifar10_wrn", f"mask=none,dropout={dropout},smoke")
        run = build(config, data.load(config.data.to_dict()))
        statistics.append(make_recalibration(run, 20, 1, 0)(lambda _, run=run: run.state.params))
    assert trees_equal(*statistics)


def test_more_curves_than_colours_are_all_drawn(monkeypatch, tmp_path):
    drawn = []
    panel = report._panel
    monkeypatch.setattr(report, "_panel", lambda axis, *rest: panel(axis, *rest) or drawn.extend(axis.get_lines()))
    report.plot({"nine": {str(i): [Row(0.0, 0.0, 0.1, 0.5, 10)] for i in range(9)}}, tmp_path / "nine.png")
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 9


def test_picture_has_both_panels(tmp_path):
    rows = [Row(rate, rate, 0.1, 1 - rate, 10, 0.1, 1 - rate / 2) for rate in (0.0, 0.5, 0.9)]
    report.plot({"weights": {"a": rows, "b": rows}, "units": {"a": rows}}, tmp_path / "picture.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.pdf", "picture.png"]


def test_many_curves_stand_in_rows():
    curves = {
        f"method {i}": [Row(r, max(r, i / 10), 0.1, 1 - r / 2, 10, intrinsic_sparsity=i / 10) for r in (0.0, 0.5)]
        for i in range(7)
    }
    lines = report.comparison(curves).splitlines()
    assert len(lines) == 2 + 7 and len({len(line) for line in lines}) == 1
    assert lines[0].split("  ")[-1].strip() == "50 % pruned"
    assert lines[-1].split() == ["method", "6", "60.0", "100.0", "@60", "75.0", "@60"]


def test_tables_align_and_say_what_is_missing():
    rows = [Row(0.0, 0.0, 0.123, 1.0, 10), Row(0.9, 0.8999, 10.5, 0.098, 10)]
    lines = report.table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1 and "recalibrated" not in lines[0]
    assert "9.80" in lines[-1] and "89.99" in lines[-1]
