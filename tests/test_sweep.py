"""A sweep over a config: its points, their files, the dry run, and the best one."""

import pandas as pd
import pytest
from conftest import ROOT
from ml_collections import ConfigDict

from td.errors import UserError
from td.evaluate.curve_files import read_curve
from td.evaluate.options import DEFAULT
from td.sweep import cost
from td.sweep.curves import list_points, run_sweep
from td.sweep.launch import HERE
from td.sweep.point import Point

MLP = ROOT / "configs" / "mnist_mlp.py"
ONE = ["mask.drop_rate=.5"]

pytestmark = pytest.mark.usefixtures("quick_pictures")


def points_in(folder, choices=ONE, rates="0,0.5", path=MLP, common=None):
    return list_points(path, "mask=targeted,smoke", common or {}, choices, folder, rates, DEFAULT)


def test_points_are_the_product_of_settings_and_arguments(tmp_path):
    listed = points_in(tmp_path, ["mask=none,targeted", "seed=0,1"], common={"data.pad": 1})
    assert [tuple(p.title.values()) for p in listed] == [("none", 0), ("none", 1), ("targeted", 0), ("targeted", 1)]
    assert [p.config.mask.name for p in listed] == ["none", "none", "targeted", "targeted"]
    assert {p.config.data.pad for p in listed} == {1} and len({p.folder for p in listed}) == 4


def test_a_config_brings_its_own_sweep_which_flags_multiply(tmp_path):
    path = tmp_path / "own.py"
    own = "def get_hyper(h):\n    return h.sweep('config.mask.drop_rate', [0.25, 0.5])\n"
    path.write_text(MLP.read_text() + own)
    listed = points_in(tmp_path, ["seed=0,1,2"], path=path)
    assert [(p.title["seed"], p.config.mask.drop_rate) for p in listed][:3] == [(0, 0.25), (0, 0.5), (1, 0.25)]
    assert len(listed) == 6 and listed[0].folder.name.startswith("own-targeted-seed0-")


def test_a_get_hyper_without_settings_raises(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(MLP.read_text() + "def get_hyper(h):\n    return []\n")
    with pytest.raises(UserError, match="lists no settings"):
        points_in(tmp_path, path=path)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("mask.cots=1", "no setting 'mask.cots'"),
        ("mask.drop_rate", "write --sweep=NAME=VALUE"),
        ("mask.drop_rate=much", "not of type float"),
        ("colour=red", "unknown config argument 'colour'"),
    ],
)
def test_a_choice_that_is_not_understood_raises(tmp_path, choice, words):
    with pytest.raises(UserError, match=words):
        points_in(tmp_path, [choice])


def test_a_point_is_trained_and_pruned_once_and_shared_by_sweeps(tmp_path):
    (first,) = listed = points_in(tmp_path)
    assert "runs: 1 finished" in run_sweep(listed, HERE)
    assert [row.prune_rate for row in read_curve(first.folder).rows] == [0.0, 0.5]
    before = {path: path.stat().st_mtime_ns for path in first.folder.glob("*.json")}
    told = run_sweep(points_in(tmp_path, ["mask.drop_rate=.5,.6"]), HERE)
    assert "runs: 2 finished" in told and len([*tmp_path.glob("runs/*/result.json")]) == 2
    assert before == {path: path.stat().st_mtime_ns for path in before}
    (other,) = points_in(tmp_path, rates="0,0.9")  # another curve of the same network
    assert other.folder == first.folder and other.state() == "started"
    run_sweep([other], HERE)
    assert other.state() == "finished" and before[first.folder / "result.json"] == (
        (first.folder / "result.json").stat().st_mtime_ns
    )


def test_texts_elsewhere_and_other_kernels_are_not_taken_for_those_of_a_run(tmp_path):
    texts = ConfigDict({"data": {"train_source": "a.en", "train_target": "a.de"}})
    point = Point({}, texts, tmp_path, tmp_path / "curve.json")
    for name in ("config", "curve"):
        (tmp_path / f"{name}.json").write_text(texts.to_json())
    assert point.state() == "finished"
    texts.data.train_source = "b.en"
    assert point.state() == "started"
    by_name, by_reading = (points_in(tmp_path, common=common) for common in ({}, {"kernels": "traced"}))
    assert by_name[0].folder != by_reading[0].folder


def test_a_sweep_without_rates_only_trains(tmp_path):
    (trained,) = listed = points_in(tmp_path, rates="")
    run_sweep(listed, HERE)
    assert trained.state() == "finished" and not [*trained.folder.glob("prune_curve*")]
    (line,) = pd.read_csv(tmp_path / "sweep.csv").to_dict("records")
    assert line["mask.drop_rate"] == 0.5 and 0 <= line["accuracy"] <= 1


def test_a_failed_point_is_told_and_the_others_go_on(tmp_path, capsys):
    listed = points_in(tmp_path, ["optim.learning_rate=1e30,0.1"])
    with pytest.raises(UserError, match="1 runs failed"):
        run_sweep(listed, HERE)
    assert [p.state() for p in listed] == ["failed", "finished"]
    assert "1e+30" in capsys.readouterr().out and "at step" in next(tmp_path.rglob("*.failed.txt")).read_text()


def test_the_best_is_chosen_on_held_out_training_examples(command, tmp_path):
    line = ["--config=configs/mnist_mlp.py:mask=l1,smoke", "--sweep=optim.learning_rate=0.001,0.3"]
    line += ["--config.duration=12 steps", "--config.optim.momentum=0.9", "--best=mean_accuracy", "--rates=0,0.5"]
    done = command("sweep.py", *line, "--validation=80", f"--workdir={tmp_path}")
    assert done.code == 0, done.err
    first, second = pd.read_csv(tmp_path / "sweep.csv").to_dict("records")
    assert first["mean_accuracy"] > second["mean_accuracy"] and first["at 0.5"] != second["at 0.5"]
    curve = read_curve(tmp_path / "runs" / first["run"])
    assert {row.examples for row in curve.rows} == {80} and curve.rows[0].accuracy == first["at 0"]
    assert done.out.splitlines()[2].split()[:2] == [f"{first['optim.learning_rate']:g}", "finished"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--best=mean_accuracy"], "give --rates, and --validation"),
        (["--best=mean_bleu", "--rates=0.5", "--config.data.validation=300"], "give --bleu"),
        (["--sweep=seed=1", "--sweep=seed=2"], "one name twice"),
        (["--best=mean_loss"], "unknown criterion 'mean_loss': did you mean"),
        (["--jobs=0"], "jobs=0 is out of range"),
        (["--executor=slrum"], "unknown executor 'slrum': did you mean 'slurm'"),
        (["--rates=0:2"], "are malformed"),
        (["--executor=slurm", "--slurm=partition"], "write --slurm=NAME=VALUE"),
    ],
)
def test_mistakes_on_the_command_line(command, tmp_path, flags, words):
    config = "--config=configs/digits_resnet.py"  # a whole run, which would take too long
    done = command("sweep.py", config, *flags, f"--workdir={tmp_path / 'out'}")
    assert done.code == 2 and words in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path):
    listed = points_in(tmp_path / "out", ["mask.drop_rate=.5,.6", "seed=0,1"], rates="0,0.5")
    told = cost.dry_run(listed)
    assert told.count("to do") == 5 and "4 runs" in told and not (tmp_path / "out").exists()
    # 16 digits, 64 x 10 + 10 x 10 weights: a product and a sum forward and at least as much backward.
    steps, step, _ = cost.run_cost(listed[0].config)
    assert steps == 6 and 4 * 16 * 740 < step < 40 * 16 * 740


def test_costs_are_counted_once_for_points_that_cost_the_same(tmp_path, monkeypatch):
    counted, rates = [], ",".join(str(i / 100) for i in range(1, 51))
    monkeypatch.setattr(cost, "run_cost", lambda config: counted.append(config) or (6, 1.0, 1.0))
    listed = points_in(tmp_path, [f"mask.drop_rate={rates}", "seed=0,1"])
    assert "100 runs" in cost.dry_run(listed) and len(counted) == 1


def test_the_time_that_is_left_is_told_once_a_point_is_trained(tmp_path):
    listed = points_in(tmp_path, ["seed=0,1"])
    assert "speed" not in cost.dry_run(listed)
    run_sweep(listed[:1], HERE)
    told = cost.dry_run(listed)
    assert "at the speed of the others" in told and told.count("finished") == 1
