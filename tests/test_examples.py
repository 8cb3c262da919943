"""Every example runs, prunes what it says, and stays short enough to be read at once."""

import json
import runpy
from importlib import import_module
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

import td

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FAST = ("plain_jax", "nnx_mlp")
SPARSITY = {
    "plain_jax": 0.75,
    "linen_conv": 0.5,
    "nnx_mlp": 0.875,
    "equinox_mlp": 0.75,
    "haiku_mlp": 0.5,
    "keras_cnn": 0.5,
    "nnx_transformer": 0.5,
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem not in FAST)) for path in EXAMPLES],
)
def test_an_example_runs_and_prunes(path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # for exports
    if path.stem == "keras_cnn" and find_spec("keras") is None:  # not imported before the backend is chosen
        pytest.skip("keras is not installed: pip install '.[test]'")
    assert runpy.run_path(str(path))["main"](steps=4) == pytest.approx(SPARSITY[path.stem], abs=0.02)
    assert "of the weights are zero" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) < 80


def test_batch_norm_and_dropout_move_in_the_nnx_example():
    main, made = runpy.run_path(str(ROOT / "examples" / "nnx_mlp.py"))["main"], []
    net = main.__globals__["Net"]
    main.__globals__["Net"] = lambda rngs: made.append(net(rngs)) or made[0]
    main(steps=4)
    assert float(abs(made[0].norm.mean[...]).max()) > 0 and int(made[0].dropout.rngs.count[...]) == 4


def test_a_project_of_ones_own_is_trained_and_pruned(command, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "own_project"))
    config = f"--config={ROOT / 'examples' / 'own_project' / 'own_config.py'}"
    finished = command("train.py", config, f"--workdir={tmp_path}", "--config.duration=2 epochs")
    assert finished.code == 0 and "accuracy" in finished.out
    assert json.loads((tmp_path / "config.json").read_text())["model"]["name"] == "own:Net"
    finished = command("prune_curve.py", f"--workdir={tmp_path}", "--rates=0,0.5", "--criterion=own:range_of_unit")
    assert finished.code == 0 and " 50.0" in finished.out


@pytest.fixture
def rival(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "rivals"))
    return lambda name, *settings: getattr(import_module(name), name)(*settings, kernels="w")


def test_nested_dropout_drops_the_last_units_and_prunes_them_first(rival):
    method, params = rival("nested_dropout", 0.5), {"w": jnp.ones((3, 8))}
    counts = set()
    for step in range(40):
        masked, _ = method.apply(params, td.MaskVars(), key=jax.random.key(0), step=step)
        kept = masked["w"].any(0).tolist()
        assert kept == sorted(kept, reverse=True)
        counts.add(sum(kept))
    assert min(counts) in (4, 5) and max(counts) == 8
    mask = td.prune_mask(params, 0.25, "unit", scores=method.scores(params, td.MaskVars()), kernels=method)
    assert mask["w"].all(0).tolist() == [True] * 6 + [False] * 2


def test_the_control_drops_the_largest_units_and_is_pruned_by_magnitude(rival):
    method, params = rival("largest_targets", 0.5, 1.0), {"w": jnp.array([[3.0, 1.0, -4.0, 2.0]])}
    masked, _ = method.apply(params, td.MaskVars(), key=jax.random.key(0), step=0)
    assert masked["w"].tolist() == [[0.0, 1.0, 0.0, 2.0]] and method.scores(params, td.MaskVars()) == {}


def test_what_cannot_be_imported_is_one_line(command, tmp_path):
    smoke = f"--config={ROOT / 'configs' / 'mnist_mlp.py'}:smoke"
    finished = command("train.py", smoke, f"--workdir={tmp_path / 'run'}", "--config.model.name=nowhere:Net")
    assert finished.code == 2 and "model 'nowhere:Net' cannot be imported" in finished.err
    assert "Traceback" not in finished.err and len(finished.err.strip().splitlines()) == 1
