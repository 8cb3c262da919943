"""The benchmark measures what it says, on a tiny network; its numbers are asserted nowhere."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.bench import compaction, curves, input_pipeline, masks, networks, populations, suites, training
from td.errors import UserError
from td.evaluate.timing import side_by_side

TINY = {"tiny": networks.Measured("cifar10_resnet32", 8, 10, "smoke")}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    for module in (compaction, curves, masks, suites):
        monkeypatch.setattr(module, "NETWORKS", TINY)
    for module, mask in ((populations, "mask=targeted,"), (training, "")):
        monkeypatch.setattr(module, "NETWORKS", {"tiny": networks.Measured("mnist_mlp", 8, 10, f"{mask}smoke")})
    monkeypatch.setattr(populations, "SIZE", 2)
    monkeypatch.setattr(input_pipeline, "CARDS", {"digits": input_pipeline.CARDS["digits"]})


def test_functions_take_turns_and_the_first_turn_is_not_timed():
    order = []
    timings = side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, calls=2)
    assert order == ["a", "b"] * 3
    assert [t.calls for t in timings] == [2, 2] and timings[0].ratio == 1.0


@pytest.mark.slow
def test_sorting_drops_what_targeted_dropout_drops():
    kernels, key = masks.random_kernels("tiny"), jax.random.key(0)
    dropped = jax.jit(masks.by_sorting)(kernels, jnp.float32(0.75), jnp.float32(0.66), key)
    ours = td.targeted("weight", 0.75, 0.66)
    seen, _ = jax.jit(ours.apply)(kernels, ours.init(key, kernels), key=key, step=0)
    for path, kernel in dropped.items():
        np.testing.assert_array_equal(kernel, seen[path])


@pytest.mark.slow
@pytest.mark.parametrize("name", suites.SUITES)
def test_a_suite_writes_its_report_and_its_numbers(name, tmp_path):
    *report, where = suites.run(name, ["tiny"], 1, False, tmp_path)
    file = f"{name}-cpu" if suites.SUITES[name].by_platform else name
    written = json.loads((tmp_path / f"{file}.json").read_text())
    assert (tmp_path / f"{file}.md").read_text().startswith("\n\n".join(report))
    assert written["suite"] == name and len(written["measured"]) == 1
    assert "median ms" in report[1] and written["commit"] in where


@pytest.mark.slow
def test_targeted_dropout_costs_little_memory():
    peaks = {}
    tiny = training.NETWORKS["tiny"]
    for arguments in ("mask=none", "mask=targeted"):
        run, state, batch = networks.prepare(tiny, networks.load_config(tiny, arguments))
        stepper = networks.Stepper(run, state, batch)
        size, peaks[arguments] = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params)), stepper.peak_bytes()
        assert np.isfinite(stepper()) and np.isfinite(stepper())
    assert 0 < peaks["mask=none"] <= peaks["mask=targeted"] <= 1.1 * peaks["mask=none"] + 2 * size


@pytest.mark.parametrize(
    ("suite", "network", "calls"), [("mask", "tiny", 1), ("masks", "tinny", 1), ("masks", "tiny", -1)]
)
def test_bad_input_is_one_line(suite, network, calls, tmp_path):
    with pytest.raises(UserError, match=r"did you mean|out of range"):
        list(suites.run(suite, [network], calls, False, tmp_path))
    assert not list(tmp_path.iterdir())
