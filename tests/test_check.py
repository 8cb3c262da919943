"""Settings that a run is rejected for, and schedules that it is warned of."""

import pytest

import td
from td import data
from td.train.config import check_config
from td.train.experiment import build, check_schedules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"granularity": "unt"}, "did you mean 'unit'"),
        ({"granularity": "unit"}, "mask.granularity='weight', but granularity='unit'"),
        ({"mask.granularity": "unit"}, "mask.granularity='unit', but granularity='weight'"),
        ({"start.workdir": "elsewhere"}, "start.workdir"),
        ({"mask.name": "fixed"}, "start.workdir"),
    ],
)
def test_settings_that_contradict_each_other_are_rejected(smoke_config, settings, message):
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    check_config(config)
    config.update_from_flattened_dict(settings)
    with pytest.raises(td.UserError, match=message):
        check_config(config)


def test_settings_that_nothing_reads_or_that_are_missing_are_rejected(smoke_config):
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    config.optim.learning_rat = 0.2
    with pytest.raises(td.UserError, match="did you mean 'optim.learning_rate'"):
        check_config(config)
    del config.optim.learning_rat
    del config.optim.momentum
    with pytest.raises(td.UserError, match="no optim.momentum"):
        check_config(config)


@pytest.mark.parametrize(
    ("mask", "settings", "message"),
    [
        ("targeted", {"optim.warmup": "7 steps"}, "optim.warmup ends at step 7, after the run, which has 6"),
        ("targeted", {"optim.warmup": "8 steps", "optim.begin": "2 steps"}, ""),
        ("targeted", {"optim.accumulate": 7}, "optim.accumulate) ends at step 7"),
        ("ramping", {"mask.stage": "4 steps"}, "mask=ramping ends at step 8"),
        ("gradual", {"mask.end": "60 steps"}, "mask=gradual ends at step 61"),
        ("gradual", {}, ""),
    ],
)
def test_runs_that_end_before_their_schedules_are_warned_of(smoke_config, caplog, mask, settings, message):
    config = smoke_config("mnist_mlp", f"mask={mask},smoke")
    config.update_from_flattened_dict(settings)
    run, _ = build(config, data.load(config.data.to_dict()), shapes_only=True)
    check_schedules(run)
    assert message in caplog.text and bool(message) == bool(caplog.text)
