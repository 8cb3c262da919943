"""Tuning trains on less and never looks at the test split."""

import json

import pytest

from td import data
from td.errors import UserError
from td.reproduce.tune import candidates


def test_tuning_scores_held_out_training_examples_and_puts_the_best_first(command, tmp_path):
    line = ["--config=configs/mnist_mlp.py:mask=l1,smoke", "--try=optim.learning_rate=0.001,0.3"]
    line += ["--config.duration=12 steps", "--config.optim.momentum=0.9"]
    done = command("tune.py", *line, "--validation=80", "--rates=0,0.5", f"--workdir={tmp_path}")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "tune.json").read_text())["candidates"]
    assert found[0]["mean"] > found[1]["mean"]
    assert len(found) == 2 and {row["examples"] for entry in found for row in entry["rows"]} == {80}
    assert done.out.splitlines()[2].split()[0] == f"{found[0]['settings']['optim.learning_rate']:g}"
    line[1] = "--try=optim.learning_rate=0.001,1e30"
    more = command("tune.py", *line, "--validation=80", "--rates=0,0.5", f"--workdir={tmp_path}")
    other = command("tune.py", *line, "--validation=90", "--rates=0,0.5", f"--workdir={tmp_path}")
    assert other.code == 2 and "tune.json has another config, --validation or --rates" in other.err
    assert more.code == 0 and "failed: {'optim.learning_rate': 1e+30}: the " in more.out
    assert json.loads((tmp_path / "tune.json").read_text())["candidates"] == found


def test_candidates_hold_out_a_part_of_the_training_data(smoke_config):
    config = smoke_config("mnist_mlp")
    ((settings, candidate),) = candidates(config, ["optim.learning_rate=0.5"], 100)
    assert settings == {"optim.learning_rate": 0.5} and candidate.optim.learning_rate == 0.5
    held_out, whole = data.load(candidate.data.to_dict()), data.load(config.data.to_dict() | {"validation": 0})
    assert held_out.train.size == whole.train.size - 100 and held_out.evaluation.size == 100


@pytest.mark.parametrize("choice", ["mask.cots=1", "mask.cost", "mask.cost=much"])
def test_a_choice_that_is_not_understood_is_told(smoke_config, choice):
    with pytest.raises(UserError, match=r"did you mean|write SETTING=VALUE|not of type float"):
        candidates(smoke_config("mnist_mlp", "mask=l1,smoke"), [choice], 100)
