"""How fast the input pipeline alone is, so that a slow run can be told from a slow network."""

import logging
from collections.abc import Iterator
from contextlib import closing
from functools import partial

from td import data
from td.bench.networks import Measured, load_config
from td.errors import UserError
from td.evaluate.timing import Timing, side_by_side

LOG = logging.getLogger(__name__)

CARDS = {
    "digits": Measured("digits_resnet", 0, 0),
    "CIFAR-10": Measured("cifar10_resnet32", 0, 0),
    "ImageNet": Measured("imagenet_resnet", 0, 0),
    "WMT14": Measured("wmt14_transformer", 0, 0),
    "numbers in words": Measured("wmt14_transformer", 0, 0, "data=numbers,scale=cpu"),
}
"""The cards whose training batches are fetched as they are in a run, each with its own batch size."""


def measure(names: list[str], calls: int, peers: bool) -> Iterator[tuple[str, list[Timing]]]:
    """Fetch training batches of every data set that is there, whatever networks are asked for; no network runs."""
    del names, peers
    for name, card in CARDS.items():
        config = load_config(card)
        try:
            dataset = data.load(config.data.to_dict())
        except UserError as error:
            LOG.warning("left out: %s", error)
            continue
        with closing(dataset.train.train_batches(config.data.batch_size, config.seed, 0)) as batches:
            size = dataset.task.count(next(batches))
            timings = side_by_side({"a training batch": partial(next, batches)}, calls, name)
        rate = size / timings[0].seconds
        yield f"{name}, {size} {dataset.task.counted} a batch: {rate:,.0f} {dataset.task.counted} a second", timings
