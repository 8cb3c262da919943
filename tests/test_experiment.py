"""Building a run from a config and its data, and loading the parameters of a finished one."""

import jax
import pytest
from conftest import trees_equal

import td
from td import data
from td.evaluate.prune_curve import prune_curve
from td.train.experiment import build, load_trained
from td.train.loop import train


def test_no_examples_means_those_of_the_run(smoke_config):
    config = smoke_config("mnist_mlp", "mask=l0,smoke")
    config.mask.cost = 1.0
    penalties = []
    for validation in (0, 700):
        config.data.validation = validation
        run, state = build(config, data.load(config.data.to_dict()))
        penalties.append(float(run.experiment.transform.penalty(state.params, state.mask_vars.gates, 0)))
    assert penalties[1] == pytest.approx(2 * penalties[0])


def test_a_batch_larger_than_the_data_raises(tiny_config):
    tiny_config.data.batch_size = 2000
    with pytest.raises(td.UserError, match="batch_size=2000 is out of range"):
        build(tiny_config, data.load(tiny_config.data.to_dict()))


def test_gates_are_averaged_with_the_parameters(smoke_config, tmp_path, one_device):
    config = smoke_config("mnist_mlp", "mask=l0,smoke")
    config.optim.ema_decay, config.optim.gate_lr_multiplier, config.mask.cost = 0.9, 100.0, 1000.0
    train(config, tmp_path, one_device)
    (_, scored), (_, stored) = load_trained(tmp_path), load_trained(tmp_path, average=False)
    assert trees_equal(scored.mask_vars.gates, stored.ema[2])
    assert not trees_equal(scored.mask_vars.gates, stored.mask_vars.gates)


def test_what_is_scored_is_the_average_and_what_goes_on_is_not(tiny_config, tmp_path, one_device):
    tiny_config.optim.ema_decay = 0.9
    result = train(tiny_config, tmp_path, one_device)
    (run, scored), (_, stored) = load_trained(tmp_path), load_trained(tmp_path, average=False)
    assert trees_equal((scored.params, scored.batch_stats, {}), stored.ema)
    assert not trees_equal(scored.params, stored.params)
    (row,) = prune_curve(run, scored, [0.0])
    assert row.accuracy == result["accuracy"] and row.loss == pytest.approx(result["loss"], rel=1e-5)
    tiny_config.optim.ema_decay = 0.0
    train(tiny_config, tmp_path / "without", one_device)
    assert trees_equal(load_trained(tmp_path / "without")[1].params, stored.params)


def test_the_generator_of_random_numbers_is_part_of_the_experiment(tiny_config, tmp_path, one_device):
    tiny_config.rng = "rbg"
    run, _ = build(tiny_config, data.load(tiny_config.data.to_dict()))
    assert str(jax.random.key_impl(run.key)) == "rbg"
    first, second = (train(tiny_config, tmp_path / name, one_device) for name in ("one", "two"))
    assert first["loss"] == second["loss"]
    tiny_config.rng = "threfry2x32"
    with pytest.raises(td.UserError, match="did you mean 'threefry2x32'"):
        build(tiny_config, data.load(tiny_config.data.to_dict()))
