"""The stripes, with everything named by its import path."""

from ml_collections import ConfigDict

from td.train.config import method, skeleton


def get_config(arg=None):
    del arg
    config = skeleton("group")
    config.duration = "10 epochs"
    config.data.name = "own:stripes"
    config.data.batch_size = 64
    config.model = ConfigDict({"name": "own:Net", "width": 32})
    config.mask = method("own:noisy", scale=0.05)
    return config
