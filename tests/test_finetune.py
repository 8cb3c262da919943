"""Fine-tuning after pruning: masks that hold, learning rates rewound, a run that is cut, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from conftest import trees_equal
from ml_collections import ConfigDict

import td
from td import data
from td.evaluate.finetune import finetune, finetune_config
from td.evaluate.options import Options
from td.evaluate.prune_curve import prune_curve
from td.train import calibrate as module
from td.train.devices import Execution
from td.train.experiment import build, load_trained
from td.train.loop import train
from td.train.optimizer import make_learning_rate

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


@pytest.fixture(scope="module")
def done(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    finetune(finished[1], "0.5,0.9", out, duration="12 steps", execution=Execution(jax.devices()[:1]))
    return out


def test_what_was_pruned_stays_zero_and_the_rest_learns(finished, done):
    run, trained = load_trained(finished[1])
    mask = td.prune_mask(trained.params, 0.9)["hidden"]["kernel"]
    tuned = load_trained(done / "rate0.9")[1].params["hidden"]["kernel"]
    assert not np.asarray(tuned)[~np.asarray(mask)].any()
    assert not np.allclose(
        np.asarray(tuned)[np.asarray(mask)], np.asarray(trained.params["hidden"]["kernel"])[np.asarray(mask)]
    )
    pruned = prune_curve(run, trained, [0.9])[0]
    row = json.loads((done / "prune_curve-weight-dense.json").read_text())["rows"][1]
    assert row["prune_rate"] == 0.9 and row["sparsity"] == pytest.approx(pruned.sparsity) and row["loss"] < pruned.loss


def test_the_run_names_the_one_it_came_from_and_a_finished_one_does_nothing(finished, done):
    result = json.loads((done / "rate0.5" / "result.json").read_text())
    assert result["config"]["start"] == {
        "workdir": str(finished[1].resolve()),
        "prune_rate": 0.5,
        "reconstruct_examples": 0,
    }
    before = load_trained(done / "rate0.5")[1]
    finetune(finished[1], "0.5", done, duration="12 steps")
    assert trees_equal(before, load_trained(done / "rate0.5")[1])


def test_trap_what_the_method_has_removed_stays_removed_and_scopes_are_its_own(smoke_config, tmp_path, one_device):
    config = smoke_config("mnist_mlp", "mask=gradual,smoke")
    config.mask.proportion = 0.6
    train(config, tmp_path, one_device)
    trained = load_trained(tmp_path)[1]
    whole = td.prune_mask(trained.params, 0.9, scope="layer", kernels="hidden")["hidden"]["kernel"]
    kept = {}
    for rate in (0.5, 0.9):
        tuned = finetune_config(tmp_path, rate, duration="1 steps")
        kept[rate] = module.pruned_start(tuned, build(tuned, data.load(tuned.data.to_dict()))[1]).mask_vars.stats
    assert float(kept[0.5]["hidden/kernel"].mean()) == pytest.approx(0.4, abs=0.002)
    assert (kept[0.9]["hidden/kernel"] == whole).all()


def test_a_rate_that_is_added_stands_beside_those_of_before(finished, done, tmp_path):
    out = shutil.copytree(done, tmp_path / "out")
    again = {"options": Options(batch_size=100)}
    for more, rates in (({}, [0.0, 0.5, 0.9]), (again, [0.0])):
        finetune(finished[1], "0", out, duration="12 steps", execution=Execution(jax.devices()[:1]), **more)
        content = json.loads((out / "prune_curve-weight-dense.json").read_text())
        assert [row["prune_rate"] for row in content["rows"]] == rates  # scored otherwise, they do not compare


@pytest.mark.slow
def test_a_fine_tuned_run_is_tuned_again_at_the_end_of_the_same_schedule(finished, done):
    config = finetune_config(done / "rate0.9", 0.95, duration="3 steps")
    assert config.optim.begin == "9 steps" and config.duration == "3 steps"
    assert finetune_config(finished[1], 0.9, duration="4 steps").optim.begin == "8 steps"


def test_units_are_masked_whole(plain, tmp_path, one_device):
    train(finetune_config(plain, 0.5, "unit", "3 steps"), tmp_path, one_device)
    kernel = load_trained(tmp_path)[1].params["hidden"]["kernel"]
    assert (np.asarray(kernel) == 0).all(axis=0).sum() == kernel.shape[1] // 2


@pytest.mark.slow
def test_batch_norm_is_recalibrated_where_that_is_asked_for(trained, tmp_path, one_device):
    options = Options("unit", recalibrate_batch_norm=True, recalibration_batches=2)
    finetune(trained, "0.5", tmp_path, options, "1 steps", one_device)
    (row,) = json.loads((tmp_path / "prune_curve-unit-dense.json").read_text())["rows"]
    assert row["prune_rate"] == 0.5 and row["recalibrated_loss"] not in (None, row["loss"])


@pytest.mark.slow
def test_a_run_starts_from_the_reconstructed_network(trained, tmp_path, one_device):
    options = Options("weight", batch_size=50, reconstruct=True, recalibration_batches=2)
    finetune(trained, "0.8", tmp_path, options, "1 steps", one_device)
    config = load_trained(tmp_path / "rate0.8")[0].config
    assert config.start.reconstruct_examples == 100
    start = {}
    for examples in (0, 100):
        config = finetune_config(trained, 0.8, "weight", "1 steps", examples)
        start[examples] = module.pruned_start(config, build(config, data.load(config.data.to_dict()))[1])
    assert trees_equal(start[0].mask_vars, start[100].mask_vars) and not trees_equal(start[0].params, start[100].params)


def test_learning_rates_are_those_of_the_last_part_of_the_original_schedule():
    settings = {"schedule": "cosine", "learning_rate": 0.1, "warmup": 10}
    whole = make_learning_rate(settings, 100)
    part = make_learning_rate({**settings, "begin": 80}, 20)
    assert [float(part(step)) for step in range(20)] == [float(whole(80 + step)) for step in range(20)]


def test_a_cut_run_goes_on_without_the_network_it_came_from(finished, tmp_path, one_device, monkeypatch):
    config = finetune_config(finished[1], 0.9, duration="12 steps")
    train(config, tmp_path, one_device, until="6 steps")
    monkeypatch.setattr(module, "load_trained", None)
    assert train(config, tmp_path, one_device)["steps"] == 12


def test_unfinished_runs_and_the_runs_own_folder_are_refused(finished, tmp_path):
    with pytest.raises(td.UserError, match="is the folder of a run, whose curves would be replaced"):
        finetune(finished[1], "0.5", finished[1])
    folder = shutil.copytree(finished[1], tmp_path / "run")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    with pytest.raises(td.UserError, match=f"of {newest.name}: delete its result.json"):
        finetune(folder, "0.5", tmp_path / "out")


def test_networks_of_another_run_that_was_in_the_folder_are_not_taken_for_this_ones(finished, done, tmp_path):
    folder, out = shutil.copytree(finished[1], tmp_path / "run"), shutil.copytree(done, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    config["mask"]["drop_rate"] = 0.25
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(td.UserError, match="has networks of another run that was in"):
        finetune(folder, "0.5", out)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rates": "1.5"}, "out of range|1.5"),
        ({"duration": "99 epochs"}, "give 1 to 12"),
        ({"options": Options("layer")}, "granularity='layer' is not known"),
    ],
)
def test_what_cannot_be_is_refused(finished, tmp_path, options, words):
    with pytest.raises(td.UserError, match=words):
        finetune(finished[1], **{"rates": "0.5", "out": tmp_path, **options})


def test_a_network_of_another_shape_is_told_and_no_run_is_recorded(finished, tmp_path, one_device):
    config = ConfigDict(finetune_config(finished[1], 0.5, duration="3 steps").to_dict())
    config.model.hidden_units = 20
    with pytest.raises(td.UserError, match="is of another network: hidden/bias is float32.10. there, float32.20. here"):
        train(config, tmp_path / "out", one_device)
    assert not (tmp_path / "out" / "config.json").exists()
