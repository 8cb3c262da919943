"""Reproducing a table: skipped, resumed, failed, split, refused."""

import json
import pickle
import shutil

import pytest
from conftest import ROOT, small_request
from ml_collections import ConfigDict

from td.errors import UserError
from td.io.run_folder import Busy
from td.kernels import KERNELS
from td.reproduce import jobs
from td.reproduce.jobs import SCALES, experiment, list_jobs, planned
from td.reproduce.table import Network, Request, load_table, table_names
from td.sweep import point
from td.sweep.launch import HERE
from td.sweep.point import run_name
from td.train.config import method, skeleton
from td.train.loop import train

CONFIGS = ROOT / "configs"

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture
def request_(tmp_path):
    return small_request(tmp_path)


@pytest.fixture
def done(reproduced, tmp_path):
    """A finished request for two seeds, with a folder of its own."""
    configs, folder = tmp_path / "configs", tmp_path / "out"
    shutil.copytree(reproduced.configs, configs)
    shutil.copytree(reproduced.folder, folder)
    return reproduced._replace(configs=configs, folder=folder)


def files(request):
    return sorted(path.name for path in (request.folder / "small").glob("*.json") if path.name != "plan.json")


def test_finished_runs_are_skipped_and_new_seeds_added(done, monkeypatch):
    calls = []
    monkeypatch.setattr(jobs, "score", lambda about, *_: calls.append(about["seed"]))
    assert "4 finished" in jobs.reproduce(done)
    assert calls == []
    jobs.reproduce(done._replace(seeds=3))
    assert calls == [2, 2]


def test_trap_no_older_checkpoint_is_scored_in_place_of_the_last(done):
    (result,) = (done.folder / "small").glob("*-none-seed0*.json")
    run = done.folder / "runs" / result.stem
    result.unlink()
    shutil.rmtree(max((run / "checkpoints").iterdir(), key=lambda path: int(path.name)))
    with pytest.raises(UserError, match="1 runs failed"):
        jobs.reproduce(done)
    told = (done.folder / "small" / f"{result.stem}.failed.txt").read_text()
    assert "is of step 4 of 6" in told


def test_a_network_that_two_tables_share_is_trained_once(done):
    shutil.copy(done.configs / "tables" / "small.py", done.configs / "tables" / "again.py")
    before = {path: path.stat().st_mtime_ns for path in done.folder.glob("runs/*/result.json")}
    jobs.reproduce(done._replace(tables=("again",), seeds=1))
    after = {path: path.stat().st_mtime_ns for path in done.folder.glob("runs/*/result.json")}
    assert after == before and len(before) == 4
    assert (done.folder / "again.md").exists()


@pytest.mark.parametrize("pair", [("table2_weight", "table2_unit"), ("table3_weight", "table3_unit")])
def test_tables_of_weights_and_of_units_share_the_network_without_a_method(pair):
    request = Request(CONFIGS, (), ROOT, seeds=1)
    listed = [list_jobs(request, name, load_table(CONFIGS, name)) for name in pair]
    weights, units = ({job.about["column"]: job.point.folder for job in each} for each in listed)
    assert {column for column in weights if weights[column] in units.values()} == {"none"}
    assert weights["none"] == units["none"]


def test_a_failed_run_is_told_the_others_go_on_and_it_is_retried_when_asked(request_, monkeypatch):
    whole = point.train_rounds

    def fails(config, *others):
        if config.mask.name == "none":
            raise MemoryError("too large")
        return whole(config, *others)

    monkeypatch.setattr(point, "train_rounds", fails)
    with pytest.raises(UserError, match="1 runs failed.*--retry_failed"):
        jobs.reproduce(request_)
    assert len(files(request_)) == 1
    (told,) = (request_.folder / "small").glob("*.failed.txt")
    assert "too large" in told.read_text()
    assert "none, seed 0 (failed)" in (request_.folder / "small.md").read_text()
    monkeypatch.setattr(point, "train_rounds", whole)
    with pytest.raises(UserError, match="1 runs failed"):
        jobs.reproduce(request_)
    assert jobs.reproduce(request_, HERE._replace(retry_failed=True)).startswith("runs: 2 finished\n")
    assert not list((request_.folder / "small").glob("*.failed.txt")) and len(files(request_)) == 2


def test_a_run_that_another_process_does_is_left_to_it(request_, monkeypatch):
    def busy(*_):
        raise Busy("another process")

    monkeypatch.setattr(point, "train_rounds", busy)
    assert "runs: 2 to do" in jobs.reproduce(request_)


def test_an_interrupted_run_goes_on(request_, monkeypatch):
    def cut(config, folder, _):
        train(config, folder, until="4 steps")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(point, "train_rounds", cut)
        jobs.reproduce(request_)
    assert "none, seed 0 (started)" in (request_.folder / "small.md").read_text()
    jobs.reproduce(request_)
    (log,) = request_.folder.glob("runs/*-none*/metrics.jsonl")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()][-1] == 6
    assert len(files(request_)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tables": ("smal",)}, "unknown table 'smal': did you mean 'small'"),
        ({"only": ("targeted",)}, "unknown column 'targeted': did you mean 'targeted .66/.75'"),
        ({"scale": "cpus"}, "cpu"),
        ({"seeds": 0}, "seeds"),
        ({"changes": {"seed": "5"}}, "--seeds=3 trains seeds 0, 1 and 2"),
        ({"changes": {"optim.learning_rat": "1"}}, "unknown setting.*did you mean 'optim.learning_rate'"),
        ({"changes": {"optim.learning_rate": "fast"}}, "not of type float"),
    ],
)
def test_bad_requests_are_told_and_nothing_is_written(request_, change, words):
    with pytest.raises(UserError, match=words):
        jobs.reproduce(request_._replace(**change))
    assert not list(request_.folder.rglob("*.json"))


def test_the_same_config_has_the_same_name_wherever_its_data_lie(request_):
    first, second = (planned(request_._replace(changes=changes))[0].point for changes in ({}, {"data.data_dir": "/x"}))
    assert first.folder == second.folder and first.config != second.config
    changes = {"optim.momentum": "0.5", "data.flip": "true", "optim.boundaries": "1 epochs,2 epochs"}
    other = planned(request_._replace(changes=changes))[0].point
    assert other.folder != first.folder and other.config.data.flip is True
    assert (other.config.optim.momentum, other.config.optim.boundaries) == (0.5, ("1 epochs", "2 epochs"))


def test_a_run_can_be_sent_to_another_process(request_):
    sent = pickle.loads(pickle.dumps(planned(request_)[0].point))
    assert sent.folder == planned(request_)[0].point.folder and sent.config == planned(request_)[0].point.config


def test_a_run_of_a_method_by_import_path_has_no_colon_in_its_name(request_):
    config = planned(request_)[0].point.config
    config.mask.name = "own:method"
    assert run_name("card", config).startswith("card-own.method-seed0-")


def test_two_networks_for_the_same_cells_are_an_error_before_anything_runs(request_):
    path = request_.configs / "tables" / "small.py"
    again = '{"mask": "none", "optim.momentum": 0.5}, {"mask": "targeted"'
    path.write_text(path.read_text().replace('{"mask": "targeted"', again))
    with pytest.raises(UserError, match="same cells of 'none'"):
        planned(request_)
    path.write_text(path.read_text().replace("momentum", "learning_rate"))
    path.write_text(path.read_text().replace('"mask": "none", "optim', '"mask": "targeted", "optim'))
    with pytest.raises(UserError, match="'targeted' and 'targeted .66/.75' of small are one run with --set"):
        planned(
            request_._replace(
                changes={"mask.drop_rate": "0.5", "mask.target_proportion": "0.5", "optim.learning_rate": "1"}
            )
        )


def test_every_scale_but_small_is_known_to_every_card():
    for card in {network.config for name in table_names(CONFIGS) for network in load_table(CONFIGS, name).networks}:
        for scale in sorted({*SCALES} - {"small"}):
            assert experiment(Request(CONFIGS, (), ROOT, scale), Network("", card, {}, ()), 3).seed == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no table: give one or more of groups, table1, table2_unit"),
        (["tabel1"], "unknown table 'tabel1': did you mean 'table1'"),
        (["table1", "--scale=smoke", "--set=seed"], "--set=seed is malformed"),
    ],
)
def test_mistakes_on_the_command_line(command, tmp_path, arguments, words):
    done = command("reproduce.py", *arguments, f"--workdir={tmp_path / 'out'}")
    assert done.code == 2 and done.err.startswith("error: ") and words in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_neutral_settings_are_not_part_of_a_runs_name(tiny_config):
    name = run_name("card", tiny_config)
    del tiny_config.rng, tiny_config.data.path
    assert run_name("card", tiny_config) == name
    tiny_config.data.path = "own.npz"
    assert run_name("card", tiny_config) != name


def test_published_runs_keep_their_names():
    ours, published = skeleton(), skeleton()
    ours.mask = published.mask = method("none")
    published.kernels = "^(?!(.*/)?(stem|logits|embedding)(/|$))"
    assert run_name("digits_resnet", ours) == run_name("digits_resnet", published)
    published.kernels = KERNELS
    assert run_name("digits_resnet", ours) != run_name("digits_resnet", published)
    ours.model = published.model = ConfigDict({"name": "mlp"})  # whose config chooses by name
    ours.kernels = "^(?!(.*/)?(stem|logits|embedding)(/|$))"
    assert run_name("mnist_mlp", ours) == run_name("mnist_mlp", published)
    published.kernels = "stem"
    assert run_name("digits_resnet", ours) != run_name("digits_resnet", published)
