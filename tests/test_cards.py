"""Which file a --config means."""

import pytest
from conftest import ROOT

import td
from td.io import cards


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_mlp.py", "configs/mnist_mlp.py", "configs/mnist_mlp"])
def test_a_card_is_found_from_any_folder(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert cards.find(name) == ROOT / "configs" / "mnist_mlp.py"


def test_a_file_of_ones_own_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "configs" / "mnist_mlp.py"
    own.parent.mkdir()
    own.write_text("")
    assert cards.find("configs/mnist_mlp.py").resolve() == own


@pytest.mark.parametrize("name", ["elsewhere/mnist_mlp.py", "/mnist_mlp.py", "../mnist_mlp"])
def test_a_folder_of_ones_own_has_no_cards(monkeypatch, tmp_path, name):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(td.UserError, match="no config file"):
        cards.find(name)


def test_a_misspelt_card_is_told_the_nearest(command, monkeypatch, tmp_path):
    finished = command("train.py", "--config=cifar10_resnet23:mask=targeted", f"--workdir={tmp_path}")
    assert finished.code == 2 and "no config file cifar10_resnet23: did you mean 'cifar10_resnet32'?" in finished.err
