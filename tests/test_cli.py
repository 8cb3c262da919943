"""Bad input on the real command lines: one clear line, a non-zero exit, no traceback, nothing half-written."""

import json
import runpy
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from td.evaluate.prune_curve import Row
from td.reproduce import quickstart
from td.train.loop import train

SMOKE = "--config=configs/mnist_mlp.py:mask=targeted,smoke"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run (tests/test_resume.py makes some by real processes)."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    train(runpy.run_path(str(ROOT / "configs" / "mnist_mlp.py"))["get_config"]("mask=targeted,smoke"), folder)
    return folder


def refused(finished, *expected):
    assert finished.code == 2, finished.err
    lines = [line for line in finished.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), finished.err
    assert "Traceback" not in finished.err + finished.out
    for text in expected:
        assert text in lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=configs/mnist_mlp.py:mask=targetd,smoke"], "did you mean 'targeted'"),
        (["--config=configs/mnist_mlp.py:masc=targeted"], "did you mean 'mask'"),
        (["--config=configs/mnist_mlp.py:granularity=wieght"], "did you mean 'weight'"),
        (["--config=configs/mnst_mlp.py"], "did you mean 'mnist_mlp.py'"),
        ([], "no --config"),
        (["--config="], "--config is empty"),
        (["--config=td/errors.py"], "errors.py is not a config file: it needs a get_config()"),
        ([SMOKE, "--config.mask=none"], "mask is a section: set one of its settings, as --config.mask."),
        ([SMOKE, "--config.seed=99999999999999999999"], "give a whole number from 0, below 2**32"),
        (
            [SMOKE, "--config.data.name=os:getcwd"],
            "data set 'os:getcwd' returns a str",
        ),
        ([SMOKE, "--config.model.name=mpl"], "unknown model 'mpl': did you mean 'mlp'"),
        ([SMOKE, "--config.data.name=digit"], "did you mean 'digits'"),
        ([SMOKE, "--config.optim.name=sdg"], "unknown optimiser 'sdg': did you mean 'sgd'"),
        ([SMOKE, "--config.optim.schedule=cosin"], "did you mean 'cosine'"),
        ([SMOKE, "--config.mask.drop_rate=1.5"], "drop_rate=1.5 is out of range: give a number in [0, 1]"),
        ([SMOKE, "--config.mask.target_proportion=-0.5"], "target_proportion=-0.5 is out of range"),
        (["--config=configs/mnist_mlp.py:mask=targeted,drop_rate=0.5"], "for example --config.mask.drop_rate=0.5"),
        ([SMOKE, "--seed=1"], "unknown flag --seed: settings are given as --config.seed="),
        (["--config=configs/mnist_mlp.py:smoke", "--config.mask.cost=1"], "choose a method, as mask=targeted"),
        ([SMOKE, "--config.mask.drop_rat=0.5"], "no setting 'mask.drop_rat': did you mean 'mask.drop_rate'"),
        ([SMOKE, "--config.duration.epochs=3"], "no setting 'duration.epochs'"),
        ([SMOKE, "--config.kernels=conv"], "pattern 'conv' matches no kernel; the kernels are: hidden/kernel"),
        ([SMOKE, "--config.optim.learning_rate=fast"], "could not convert string to float: 'fast'"),
        ([SMOKE, "--config.data.batch_size=1.5"], "1.5"),
        ([SMOKE, "--config.data.batch_size=-8"], "data.batch_size=-8 is out of range"),
        ([SMOKE, "--config.duration=3"], "write a number and steps, epochs or examples"),
        ([SMOKE, "--confg=1"], "Unknown command line flag"),
        ([SMOKE, "--hosts=3/2@localhost:1"], "give i/n@address:port, i from 1 to n"),
        ([SMOKE, "--shard=kernl$"], "pattern 'kernl$' matches no leaf of the training state"),
        ([SMOKE, "--hosts=two"], "hosts 'two' is not understood"),
        (["--config", "configs/mnist_mlp.py:mask=targetd"], "error: unknown method 'targetd': did you mean 'targeted'"),
        ([SMOKE, "config.mask.drop_rate=0.9"], "'config.mask.drop_rate=0.9' is not a flag: flags begin with --"),
        ([SMOKE, "--config.every.log=often"], "duration 'often' is not understood"),
        ([SMOKE, "--config.optim.warmup=soon"], "duration 'soon' is not understood"),
        ([SMOKE, "--config.duration=0 steps"], "less than one step"),
        ([SMOKE, "--config.data.pad=-1"], "data.pad=-1 is out of range"),
        ([SMOKE, "--config.seed=-1"], "seed=-1 is out of range"),
    ],
)
def test_training_refuses(command, tmp_path, arguments, expected):
    folder = tmp_path / "run"
    refused(command("train.py", *arguments, f"--workdir={folder}"), expected)
    assert not folder.exists()


def test_missing_data(command, tmp_path):
    overrides = ["--config.data.name=cifar10", f"--config.data.data_dir={tmp_path}"]
    refused(command("train.py", SMOKE, *overrides, f"--workdir={tmp_path / 'run'}"), "td-prepare-data cifar10")


def test_print_config_shows_every_setting_as_json_and_trains_nothing(command):
    finished = command("train.py", SMOKE, "--config.mask.drop_rate=0.25", "--print_config")
    settings = json.loads(finished.out)
    assert finished.code == 0 and settings["mask"]["drop_rate"] == 0.25 and settings["duration"] == "6 steps"


def test_unwritable_workdir(command, tmp_path):
    (tmp_path / "file").write_text("")
    refused(command("train.py", SMOKE), "--workdir is empty: give a path")
    refused(command("train.py", SMOKE, f"--workdir={tmp_path / 'file'}"), "File exists")
    refused(command("train.py", SMOKE, f"--workdir={tmp_path / 'file' / 'below'}"), "Not a directory")


def test_unreadable_run(command, made, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    (copy / "config.json").write_text("{")
    refused(command("prune_curve.py", f"--workdir={copy}"), "cannot read", "config.json")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_in_one_line(made, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    for path in (copy / "checkpoints" / "6" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[::-1])
    line = [sys.executable, "scripts/prune_curve.py", f"--workdir={copy}", "--rates=0.5"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if line.strip() and "prune curve:" not in line]
    assert (
        done.returncode == 0
        and len(told) == 1
        and "checkpoint 6" in told[0]
        and "is damaged, trying the one before" in told[0]
    )


def test_workdir_of_another_config(command, made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file() and path.name != ".lock"}
    finished = command("train.py", SMOKE, f"--workdir={made}", "--config.mask.drop_rate=0.6")
    refused(finished, "belongs to another config: mask.drop_rate is 0.5 there, 0.6 here")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_same_command_again_reports_the_finished_run(command, made):
    finished = command("train.py", SMOKE, f"--workdir={made}")
    assert finished.code == 0 and "is finished" in finished.err and "accuracy" in finished.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rates=0:0.9"], "rates '0:0.9' are malformed: write first:last:step"),
        (["--rates=0:1.5:0.5"], "prune rate=1.5 is out of range"),
        (["--granularity=wieght"], "did you mean 'weight'"),
        (["--mode=dens"], "did you mean 'dense'"),
        (["--recalibrate_batch_norm"], "nothing to recalibrate"),
        (["--recalibration_batches=0"], "recalibration_batches"),
    ],
)
def test_prune_curve_refuses(command, made, arguments, expected):
    refused(command("prune_curve.py", f"--workdir={made}", *arguments), expected)
    assert not list(made.glob("prune_curve*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--granularity=wieght"], "did you mean 'weight'"),
        (["--recalibration_batches=0", "--recalibrate_batch_norm", "--duration=1 steps"], "recalibration_batches"),
    ],
)
def test_finetune_refuses(command, made, tmp_path, arguments, expected):
    refused(command("finetune.py", f"--workdir={made}", f"--out={tmp_path / 'out'}", *arguments), expected)


def test_prune_targets_needs_targets(command, tmp_path):
    config = "--config=configs/mnist_mlp.py:mask=none,smoke"
    assert command("train.py", config, f"--workdir={tmp_path}").code == 0
    refused(command("prune_curve.py", f"--workdir={tmp_path}", "--mode=prune_targets"), "needs a method with targets")


def test_no_run_and_no_checkpoint_yet(command, made, tmp_path):
    refused(command("prune_curve.py", f"--workdir={tmp_path}"), "no run in", "scripts/train.py")
    shutil.copy(made / "config.json", tmp_path)
    refused(command("prune_curve.py", f"--workdir={tmp_path}"), "no checkpoint in", "scripts/train.py")
    (tmp_path / "checkpoints").mkdir()
    refused(command("prune_curve.py", f"--workdir={tmp_path}"), "no checkpoint in", "scripts/train.py")


def test_prune_curve_prints_an_aligned_table_and_its_picture(command, made, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    finished = command("prune_curve.py", f"--workdir={copy}", "--rates=0:0.9:0.3", "--granularity=unit")
    assert finished.code == 0 and str(copy / "prune_curve-unit-dense.png") in finished.out
    table = [line for line in finished.out.splitlines() if line.strip()][:6]
    assert len({len(line) for line in table}) == 1


def test_prepare_data_names_what_it_needs(command, tmp_path):
    refused(command("prepare_data.py", "cifar11"), "did you mean 'cifar1")
    refused(command("prepare_data.py"), "no data set: give one or more of cifar10")
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        finished = command("prepare_data.py", "imagenet2012", f"--data_dir={tmp_path}")
        refused(finished, "needs TensorFlow", "pip install '.[prepare]'")


def test_quickstart_says_what_it_measured():
    """The run itself is the README's first command; here only what it says of given curves."""
    costs = {"parameters": 7146, "flops": 147888, "milliseconds_1": 0.2, "milliseconds_128": 2.8}
    costs |= {"uncompacted_milliseconds_1": 0.2, "uncompacted_milliseconds_128": 3.0}
    costs |= {"compressed_bytes": 27468, "deviation": 1e-7}
    rows = [Row(rate, rate, 0.1, 0.9, 10, 0.1, 0.95, **costs) for rate in (0.0, 0.5, 0.7, 0.9)]
    worse = [row._replace(accuracy=0.1, recalibrated_accuracy=0.5) for row in rows]
    weights, units = {"plain": worse, "targeted": rows, "ramping": rows}, {"plain": worse, "targeted": rows}
    text = quickstart.summary({"weight": weights, "group": units})
    claims = [line for line in text.splitlines() if "against" in line]
    assert len(claims) == 3
    assert all("90.0 % against 10.0 % (+80.0 points)" in line and "(+45.0)" in line for line in claims)
    assert [line.split()[:5] for line in text.splitlines()[-2:]] == [
        [rate, "90.0", "95.0", "7,146", "147,888"] for rate in ("0", "70")
    ]
    assert [row["milliseconds_128"] for row in quickstart.compacted({"group": units})["targeted"]] == [2.8, 2.8]


def test_every_network_of_the_quickstart_trains_equally_long(monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(quickstart, "train", lambda config, _: trained.append(config.duration))
    monkeypatch.setattr(quickstart, "load_trained", lambda folder, finished: folder)
    monkeypatch.setattr(quickstart, "prune_curves", lambda *_: sys.exit())
    get_config = runpy.run_path(str(ROOT / "configs" / "digits_resnet.py"))["get_config"]
    with pytest.raises(SystemExit):
        quickstart.run(get_config, tmp_path, 0.0)
    assert len(trained) == 4 and len(set(trained)) == 1
