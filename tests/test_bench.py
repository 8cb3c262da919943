"""The benchmark measures what it says, on a tiny network; its numbers are asserted nowhere."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.bench import baselines, compiled, networks, overhead, suites
from td.errors import UserError
from td.evaluate.timing import side_by_side
from td.kernels import select_kernels

TINY = {"tiny": networks.Measured("cifar10_resnet32", 8, 10, "smoke")}
MLP = networks.Measured("mnist_mlp", 8, 10, "smoke")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    own = {"populations": {"tiny": MLP}}
    small = {name: suite._replace(networks=own.get(name, TINY)) for name, suite in suites.SUITES.items()}
    monkeypatch.setattr(suites, "SUITES", small)
    monkeypatch.setattr(suites, "SIZE", 2)


def test_functions_are_interleaved_and_the_first_round_is_not_timed():
    order = []
    timings = side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2)
    assert order == ["a", "b"] * 3
    assert [t.calls for t in timings] == [2, 2] and timings[0].ratio == 1.0


@pytest.mark.slow
def test_sorting_drops_what_targeted_dropout_drops():
    kernels, key = select_kernels(*overhead.random_params(TINY["tiny"])), jax.random.key(0)
    dropped = jax.jit(overhead.by_sorting)(kernels, jnp.float32(0.75), jnp.float32(0.66), key)
    ours = td.targeted("weight", 0.75, 0.66, kernels=".*")
    seen, _ = jax.jit(ours.apply)(kernels, ours.init(key, kernels), key=key, step=0)
    for path, kernel in dropped.items():
        np.testing.assert_array_equal(kernel, seen[path])


@pytest.mark.slow
@pytest.mark.parametrize("name", suites.SUITES)
def test_a_suite_writes_its_report_and_its_numbers(name, tmp_path):
    *report, where = suites.run(name, ["tiny"], 1, False, tmp_path)
    file = f"{name}-cpu" if name == "compact" else name
    written = json.loads((tmp_path / f"{file}.json").read_text())
    assert (tmp_path / f"{file}.md").read_text().startswith("\n\n".join(report))
    assert written["suite"] == name and len(written["measured"]) == 1
    assert "median ms" in report[1] and written["commit"] in where


@pytest.mark.slow
def test_steps_in_pytorch_learn(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra bench)")
    monkeypatch.setitem(baselines.NETWORKS, "tiny", lambda: baselines._residual((1,), (8,), 3, 10))
    cases = baselines.step_cases("tiny", 8, 10, 0.5, 0.5)
    assert len(cases) == 4
    for name, step in cases.items():
        losses = [step() for _ in range(30)]
        assert np.isfinite(losses).all() and losses[-1] < losses[0], name


@pytest.mark.slow
def test_targeted_dropout_costs_little_memory():
    peaks = {}
    for arguments in ("mask=none", "mask=targeted"):
        run, state, batch = networks.prepare(MLP, arguments)
        stepper = networks.Stepper(run, state, batch)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
        peaks[arguments] = networks.peak_bytes(stepper.compiled)
        assert np.isfinite(stepper()) and np.isfinite(stepper())
    assert 0 < peaks["mask=none"] <= peaks["mask=targeted"] <= 1.1 * peaks["mask=none"] + 2 * size


@pytest.mark.parametrize(("suite", "network"), [("mask", "tiny"), ("masks", "tinny")])
def test_an_unknown_name_is_one_line(suite, network, tmp_path):
    with pytest.raises(UserError, match="did you mean"):
        list(suites.run(suite, [network], 1, False, tmp_path))
    assert not list(tmp_path.iterdir())


def test_kernels_in_loops_count_as_often_as_they_run():
    program = """
%body (p: s32[]) -> s32[] {
  %a = s32[] fusion(%p), kind=kLoop
}
ENTRY %main (q: s32[]) -> s32[] {
  %b = s32[] copy(%q)
  %c = s32[] while(%b), body=%body, backend_config={"known_trip_count":{"n":"8"}}
}
"""
    assert compiled.count_kernels(program) == (9, 8, 0)
