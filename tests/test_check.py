"""What a run is not begun with, and what it is warned of."""

import pytest

import td
from td import data
from td.train.check import check_learns, check_new, check_read
from td.train.config import method, skeleton
from td.train.experiment import outline


@pytest.mark.parametrize(
    ("card", "settings", "message"),
    [
        ("mask=targeted", {"optim.decay": 0.2}, "optim.decay is not read where optim.schedule is 'cosine': leave it"),
        ("mask=targeted", {"optim.b1": 0.5}, "optim.b1 is not read where optim.name is 'sgd'.* give optim.name=adam"),
        ("mask=targeted", {"optim.gate_rate": 2.0}, "not read where mask.name is 'targeted'.*=l0 or variational"),
        ("mask=l0", {"optim.gate_rate": 2.0, "optim.momentum": 0.5, "data.pad": 1, "data.batch_size": 8}, ""),
        ("mask=targeted", {"optim.schedule": "staircase", "optim.decay": 0.2, "seed": 3}, ""),
    ],
)
def test_what_is_asked_for_by_name_is_read(smoke_config, tmp_path, card, settings, message):
    config = smoke_config("digits_resnet", card)
    config.update_from_flattened_dict(settings)
    if not message:
        return check_read([config], tmp_path, settings)
    with pytest.raises(td.UserError, match=message):
        check_read([config], tmp_path, settings)
    (tmp_path / "config.json").write_text(config.to_json())
    return check_read([config], tmp_path, settings)


@pytest.mark.parametrize(
    ("mask", "settings", "message"),
    [
        ("targeted", {"optim.accumulate": 7}, "error: optim.accumulate=7 batches make one update, and the run has 6"),
        ("targeted", {"optim.warmup": "7 steps"}, "optim.warmup ends at step 7, after the run, which has 6"),
        ("targeted", {"optim.warmup": "8 steps", "optim.begin": "2 steps"}, ""),
        ("ramping", {"mask.stage": "4 steps"}, "mask=ramping ends at step 8"),
        ("gradual", {"mask.end": "60 steps"}, "mask=gradual ends at step 61"),
        ("gradual", {"mask.end": "6 steps"}, "mask=gradual ends at step 7"),
        ("gradual", {}, ""),
    ],
)
def test_runs_that_end_too_early_are_told(smoke_config, tmp_path, caplog, mask, settings, message):
    config = smoke_config("mnist_mlp", f"mask={mask},smoke")
    config.update_from_flattened_dict(settings)
    run, _ = outline(config, data.load(config.data.to_dict()))
    if message.startswith("error: "):
        with pytest.raises(td.UserError, match=message.removeprefix("error: ")):
            check_learns(run)
    else:
        check_learns(run)
        assert message in caplog.text and bool(message) == bool(caplog.text)


def test_settings_that_are_misspelt_in_a_config_file_are_refused(tmp_path):
    config = skeleton()
    config.mask = method("targeted")
    config.optim.learning_rat = 0.2
    with pytest.raises(td.UserError, match="learning_rat, which nothing reads: did you mean .optim.learning_rate"):
        check_new(config)
    del config.optim.learning_rat
    config.optm = {"learning_rate": 0.2}
    with pytest.raises(td.UserError, match="optm.learning_rate, which nothing reads: did you mean .optim.learning"):
        check_new(config)
    del config.optm
    del config.optim.momentum
    with pytest.raises(td.UserError, match="the config has no optim.momentum: begin with"):
        check_new(config)
    config.optim.momentum = 0.9
    config.start.workdir = "elsewhere"
    with pytest.raises(td.UserError, match="mask=targeted starts from no other network"):
        check_new(config)
    config.start.update(workdir="", prune_rate=0.5)
    with pytest.raises(td.UserError, match="start.prune_rate=0.5, but of which network"):
        check_new(config)
    config.start.prune_rate, config.mask = 0.0, method("fixed")
    with pytest.raises(td.UserError, match="mask=fixed needs a pruned network"):
        check_new(config)
