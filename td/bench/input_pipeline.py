"""The speed of the input pipeline alone, to tell a slow run from a slow network."""

import logging
from contextlib import closing
from functools import partial

from td import data
from td.bench.networks import Measured, load_config
from td.errors import UserError
from td.evaluate.timing import Timing, side_by_side

LOG = logging.getLogger(__name__)

NETWORKS = {
    "digits": Measured("digits_resnet", 0, 0),
    "CIFAR-10": Measured("cifar10_resnet32", 0, 0),
    "ImageNet": Measured("imagenet_resnet", 0, 0),
    "WMT14": Measured("wmt14_transformer", 0, 0),
    "numbers in words": Measured("wmt14_transformer", 0, 0, "data=numbers,scale=cpu"),
}
"""The configs whose training batches are fetched, each with its own batch size; no network runs."""


def measure(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, list[Timing]] | None:
    """Fetch training batches of a data set, if it is prepared."""
    del baselines
    config = load_config(network)
    try:
        dataset = data.load(config.data.to_dict())
    except UserError as error:
        LOG.warning("left out: %s", error)
        return None
    with closing(dataset.train.train_batches(config.data.batch_size, config.seed, 0)) as batches:
        size, counted = dataset.task.count(next(batches)), dataset.task.counted
        timings = side_by_side({"a training batch": partial(next, batches)}, repeats, name)
    return f"{name}, {size} {counted} a batch: {size / timings[0].seconds:,.0f} {counted} a second", timings
