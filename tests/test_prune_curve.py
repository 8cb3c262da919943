"""Prune curves: one compile, measured sparsity, the three modes, criteria, recalibration, dead units."""

import json
import logging
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import load_config, trees_equal

import td
from td import data
from td.evaluate import point as module
from td.evaluate.options import Options, as_trained
from td.evaluate.point import make_pruned
from td.evaluate.prune_curve import prune_curve, rank, scored_in_one_program
from td.train.calibrate import calibration_batches, make_reconstruct, make_update, reference_params
from td.train.devices import Execution
from td.train.experiment import build, load_trained
from td.train.loop import train
from td.train.score import make_evaluation


@pytest.fixture
def network(finished):
    """A dense network trained with targeted dropout of weights, .75 and .5."""
    return load_trained(finished[1])


def pruned_by(run, state, **options):
    chosen = as_trained(Options(**options), run.config)
    scores, pruned = rank(run, state, chosen), make_pruned(run, chosen)
    return lambda rate, key: pruned(state, scores, rate, key)


def test_one_compile_for_all_rates_and_every_test_image_once(network, monkeypatch):
    jitted, steps = [], []
    make_step = module.make_eval_step
    monkeypatch.setattr(module, "make_eval_step", lambda *a: steps.append(make_step(*a)) or steps[-1])
    jit = jax.jit
    monkeypatch.setattr(jax, "jit", lambda f, **options: jitted.append(jit(f, **options)) or jitted[-1])
    rows = prune_curve(*network, [0.0, 0.3, 0.6, 0.9], Options(batch_size=25))
    assert [row.examples for row in rows] == [60] * 4
    assert {compiled._cache_size() for compiled in [*jitted, *steps]} == {1}


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_rows_carry_the_measured_sparsity(network, granularity):
    rows = prune_curve(*network, [0.0, 0.5, 1.0], Options(granularity=granularity))
    assert [row.prune_rate for row in rows] == [0.0, 0.5, 1.0]
    assert [round(row.sparsity, 2) for row in rows] == [0.0, 0.5, 1.0]


def test_rate_zero_is_the_trained_network(network, finished):
    result = json.loads((finished[1] / "result.json").read_text())
    row = prune_curve(*network, [0.0])[0]
    assert row.accuracy == result["accuracy"] and row.loss == pytest.approx(result["loss"], rel=1e-5)


def test_the_network_that_is_scored_is_pruned_by_magnitude(network):
    _, state = network
    params, _ = pruned_by(*network)(jnp.float32(0.5), jax.random.key(0))
    expected = td.apply_mask(state.params, td.prune_mask(state.params, 0.5))
    assert trees_equal(params, expected)


def test_mode_prune_targets_prunes_no_less_than_the_targets(finished):
    network = load_trained(finished[1], {"evaluation": "prune_targets"})
    rows = prune_curve(*network, [0.0, 0.5, 0.9], Options(mode="prune_targets"))
    assert [row.sparsity for row in rows] == pytest.approx([0.75, 0.75, 0.89], abs=0.005)
    assert rows[0].accuracy == rows[1].accuracy and rows[0].loss == rows[1].loss


def test_mode_stochastic_drops_as_training_does_and_depends_on_its_seed(network):
    rows = [prune_curve(*network, [0.0], Options(mode="stochastic", seed=seed))[0] for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert rows[0].sparsity == pytest.approx(0.75 * 0.5, abs=0.04)


def test_trap_what_is_measured_in_stochastic_mode_is_what_is_scored(network, monkeypatch):
    scored, step = [], module.make_eval_step

    def noting(*arguments):
        evaluate = step(*arguments)
        return lambda params, *rest: scored.append(params) or evaluate(params, *rest)

    monkeypatch.setattr(module, "make_eval_step", noting)
    (row,) = prune_curve(*network, [0.3], Options(mode="stochastic", batch_size=25))
    assert len(scored) == 3
    zeros = [float(td.sparsity(params, network[0].experiment.kernels).total) for params in scored]
    assert len(set(zeros)) > 1 and row.sparsity == pytest.approx(np.mean(zeros), abs=1e-6)


def recalibrated(run, state, batch_size, count):
    batches = islice(run.dataset.train.sample_batches(batch_size, 0), count)
    return td.recalibrate(make_update(run), state.batch_stats, ((state.params, batch) for batch in batches))


def test_recalibration_is_the_mean_of_batch_statistics_and_changes_no_weight(trained):
    run, state = load_trained(trained)
    before = jax.device_get(state)
    statistics = recalibrated(run, state, 50, 3)
    assert trees_equal(before, state)
    stem = run.experiment.model.clone(batch_norm_momentum=0.0)
    apply = jax.jit(partial(stem.apply, train=True, mutable=["batch_stats"]))
    means = []
    for i in range(3):
        images = data.standardize(run.dataset.train.train_batch(i, 50, 0).images)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        _, seen = apply(variables, images)
        means.append(np.asarray(seen["batch_stats"]["stage1_block1"]["norm1"]["mean"]))
    np.testing.assert_allclose(statistics["stage1_block1"]["norm1"]["mean"], np.mean(means, axis=0), rtol=1e-5)


def test_recalibrated_numbers_are_next_to_those_as_trained(trained):
    again = {"recalibrate_batch_norm": True, "recalibration_batches": 2}
    alone, both = (
        prune_curve(*load_trained(trained), [0.0, 0.5], Options(batch_size=100, **more)) for more in ({}, again)
    )
    assert [row[:5] for row in alone] == [row[:5] for row in both]
    assert all(row.recalibrated_accuracy is None for row in alone)
    assert all(0 <= row.recalibrated_accuracy <= 1 and row.recalibrated_loss > 0 for row in both)


@pytest.mark.slow
def test_reconstructed_numbers_are_next_to_the_others(trained):
    options = Options(batch_size=50, recalibration_batches=1, recalibrate_batch_norm=True)
    run, state = load_trained(trained)
    (before,), (row,) = (prune_curve(run, state, [0.5], options._replace(reconstruct=on)) for on in (False, True))
    assert row._replace(**{name: None for name in row._fields if name.startswith("reconstructed")}) == before
    assert row.reconstructed_loss is not None and row.reconstructed_recalibrated_accuracy is not None
    with pytest.raises(td.UserError, match="--reconstruct"):
        as_trained(Options(mode="stochastic", reconstruct=True), run.config)


def test_a_network_without_its_targets_is_the_reference(smoke_config):
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    run, state = build(config, data.load(config.data.to_dict()))
    fractions = [
        td.sparsity(params, run.experiment.kernels).total for params in (state.params, reference_params(run, state))
    ]
    assert [round(float(fraction), 2) for fraction in fractions] == [0.0, 0.75]


def test_a_network_is_reconstructed_only_where_that_leaves_a_smaller_loss(network, caplog):
    run, state = network
    sharp = jax.tree.map(lambda leaf: 4 * leaf, state.params)
    labelled = []  # by the network itself
    for batch in calibration_batches(run.dataset.train, 50, 4, 0):
        logits = run.experiment.model.apply({"params": sharp}, *run.experiment.task.inputs(batch, None))
        labelled.append(batch._replace(labels=np.asarray(logits.argmax(-1))))
    mask = td.prune_mask(sharp, 0.9, kernels=run.experiment.kernels)
    pruned = td.apply_mask(sharp, mask)
    for params, kept in ((sharp, False), (jax.tree.map(jnp.zeros_like, sharp), True)):
        reference = state._replace(params=params)
        found, _ = make_reconstruct(run, reference, labelled)(pruned)
        assert trees_equal(found, pruned) == kept == ("not reconstructed" in caplog.text)


def test_nothing_to_recalibrate_is_told(plain):
    with pytest.raises(td.UserError, match="no BatchNorm"):
        prune_curve(*load_trained(plain), [0.0], Options(recalibrate_batch_norm=True))


@pytest.mark.parametrize("criterion", ["l1", "random", "taylor", "fisher", "activation"])
def test_every_criterion_prunes_a_trained_network_by_its_own_scores(network, criterion):
    fewer = {} if criterion in ("l1", "random") else {"criterion_examples": 100}
    options = as_trained(Options(criterion=criterion, **fewer), network[0].config)
    scores = rank(*network, options)
    params, left = make_pruned(network[0], options)(network[1], scores, jnp.float32(0.5), jax.random.key(0))
    assert float(left.sparsity) == pytest.approx(0.5, abs=0.01)
    kernel, score = np.asarray(params["hidden"]["kernel"]), np.asarray(scores["hidden/kernel"])
    for column, ranking in zip(kernel.T, score.T, strict=True):
        assert ranking[column == 0].max() <= ranking[column != 0].min()


def test_the_gradient_that_taylor_uses_is_that_of_the_trained_network(network):
    run, state = network
    scores = rank(run, state, as_trained(Options(criterion="taylor", criterion_examples=50), run.config))
    batch = run.dataset.train.train_batch(0, 50, 0)

    def loss(params):
        logits = run.experiment.model.apply({"params": params}, data.standardize(batch.images))
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(50), batch.labels])

    gradient = jax.jit(jax.grad(loss))(state.params)["hidden"]["kernel"]
    expected = np.abs(np.asarray(state.params["hidden"]["kernel"] * gradient))
    np.testing.assert_allclose(scores["hidden/kernel"], expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(
    ("mask", "own"),
    [
        ("gradual", 0.9),
        *(pytest.param(mask, None, marks=pytest.mark.slow) for mask in ("l0", "variational", "smallify")),
    ],
)
def test_intrinsic_sparsity_is_what_the_method_has_switched_off(tmp_path, mask, own):
    config = load_config("mnist_mlp", f"mask={mask},smoke")
    train(config, tmp_path, Execution(jax.devices()[:1]))
    run, state = load_trained(tmp_path)
    shown, _ = run.experiment.transform.apply(state.params, state.mask_vars, key=None, step=state.step)
    zeros = float((np.asarray(shown["hidden"]["kernel"]) == 0).mean())
    rows = prune_curve(run, state, [0.0, 0.5, 0.95])
    assert [row.intrinsic_sparsity for row in rows] == [pytest.approx(zeros, abs=1e-6)] * 3
    assert rows[0].sparsity == pytest.approx(zeros, abs=1e-6) and rows[2].sparsity >= 60 / 64
    assert own is None or zeros == pytest.approx(own, abs=0.01)


@pytest.mark.parametrize("mask", ["l0", pytest.param("smallify", marks=pytest.mark.slow)])
def test_trap_stochastic_mode_applies_the_method_once(tmp_path, mask):
    train(load_config("mnist_mlp", f"mask={mask},smoke"), tmp_path, Execution(jax.devices()[:1]))
    (run, state), key = load_trained(tmp_path), jax.random.key(5)
    drawn, _ = pruned_by(run, state, mode="stochastic")(jnp.float32(0.0), key)
    expected, _ = run.experiment.transform.apply(state.params, state.mask_vars, key=key, step=state.step)
    np.testing.assert_allclose(drawn["hidden"]["kernel"], expected["hidden"]["kernel"], rtol=1e-6)


@pytest.mark.slow
def test_a_network_with_dropout_of_activations_is_recalibrated_without_it():
    statistics = []
    for dropout in (0.0, 0.3):
        config = load_config("cifar10_wrn", f"mask=none,dropout={dropout},smoke")
        run, state = build(config, data.load(config.data.to_dict()))
        statistics.append(recalibrated(run, state, 20, 1))
    assert trees_equal(*statistics)


def test_a_prune_curve_counts_dead_units_and_warns_of_an_empty_layer(plain, caplog):
    with caplog.at_level(logging.WARNING, "td.evaluate.prune_curve"):
        rows = prune_curve(*load_trained(plain), [0.0, 0.5, 1.0], Options("unit"))
    assert [row.dead_units for row in rows] == [0.0, 0.5, 1.0]
    assert [row.empty_layers for row in rows] == [0, 0, 1]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "td.evaluate.prune_curve"]
    assert line == "100 % pruned: nothing is left of hidden/kernel"


@pytest.mark.parametrize(("mode", "again"), [("dense", False), ("stochastic", False), ("dense", True)])
def test_a_curve_as_one_program_is_the_curve_batch_by_batch(finished, trained, mode, again):
    run, state = load_trained(trained if again else finished[1])
    more = {"recalibrate_batch_norm": True, "recalibration_batches": 2} if again else {}
    options = Options(mode=mode, batch_size=25, **more)
    rates = [0.0, 0.5, 0.9]
    alone = prune_curve(run, state, rates, options)
    together = scored_in_one_program(run, state, rates, as_trained(options, run.config))
    for one, other in zip(alone, together, strict=True):
        assert one.prune_rate == other.prune_rate and one.examples == other.examples
        np.testing.assert_allclose(
            [value for value in one if value is not None], [value for value in other if value is not None], rtol=1e-4
        )


def test_an_evaluation_as_one_program_is_the_evaluation_batch_by_batch(finished):
    run, state = load_trained(finished[1])
    (one, zeros), (other, same) = (make_evaluation(run, cache_on_device=cached)(state) for cached in (False, True))
    assert one.accuracy == other.accuracy and one.examples == other.examples and zeros == same
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
