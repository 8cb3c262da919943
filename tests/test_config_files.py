"""Which file a --config means."""

import re

import pytest
from conftest import ROOT

import td
from td.io import cli


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_mlp.py", "configs/mnist_mlp.py", "configs/mnist_mlp"])
def test_a_config_is_found_from_any_folder(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert cli.find_config(name) == ROOT / "configs" / "mnist_mlp.py"


def test_a_file_of_ones_own_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "configs" / "mnist_mlp.py"
    own.parent.mkdir()
    own.write_text("")
    assert cli.find_config("configs/mnist_mlp.py").resolve() == own


@pytest.mark.parametrize("name", ["elsewhere/mnist_mlp.py", "/mnist_mlp.py", "../mnist_mlp"])
def test_a_folder_of_your_own_has_only_your_configs(monkeypatch, tmp_path, name):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(td.UserError, match="no config file"):
        cli.find_config(name)


def test_a_misspelt_name_gets_the_nearest(command, monkeypatch, tmp_path):
    finished = command("train.py", "--config=cifar10_resnet23:mask=targeted", f"--workdir={tmp_path}")
    assert finished.code == 2 and "no config file cifar10_resnet23: did you mean 'cifar10_resnet32'?" in finished.err


def test_ones_own_file_is_named_as_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text("")
    with pytest.raises(td.UserError, match=r"no config file mynet: did you mean 'mynet.py'"):
        cli.find_config("mynet")


def test_what_is_wrong_in_what_it_imports_is_told_with_both(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helps_own.py").write_text("\n\nfor\n")
    (tmp_path / "own.py").write_text("import td\nimport helps_own\n")
    with pytest.raises(td.UserError, match=r"own.py, line 2: SyntaxError: invalid syntax \(helps_own.py, line 3\)"):
        cli.with_config(["td-train", f"--config={tmp_path / 'own.py'}"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import td\n\ndef get_config():\n    return 1 / 0\n", "own.py, line 4: ZeroDivisionError: division by zero"),
        ("import td\ndef get_config(:\n", "own.py, line 2: SyntaxError: invalid syntax"),
        ("import tdd\n", "own.py, line 1: ModuleNotFoundError: No module named 'tdd'"),
        ("def get_config():\n    return 3\n", "own.py is not a config file: it needs a get_config()"),
    ],
)
def test_what_is_wrong_in_ones_own_file_is_told_with_its_line(tmp_path, text, told):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(td.UserError, match=re.escape(told)):
        cli.with_config(["td-train", f"--config={tmp_path / 'own.py'}"])
