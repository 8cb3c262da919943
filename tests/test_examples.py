"""Every example runs, prunes what it says, and stays short enough to be read at once."""

import runpy

import pytest
from conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SPARSITY = {"plain_jax": 0.75, "linen_conv": 0.5, "nnx_mlp": 0.875, "equinox_mlp": 0.75, "haiku_mlp": 0.5}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_prunes(path, capsys):
    assert runpy.run_path(str(path))["main"](steps=4) == pytest.approx(SPARSITY[path.stem], abs=0.02)
    assert "of the weights are zero" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) < 60
