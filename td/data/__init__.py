"""The data sets, and the one table that names them in configs."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from td.data import digits, images, records, text
from td.data.augment import augment, standardize
from td.data.base import Batch, Dataset, Examples, Split, eval_batches, train_batch
from td.data.prepared import folder_of, prepared
from td.data.task import Task
from td.errors import lookup

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits.load,
    **{name: partial(images.load, name) for name in images.NAMES},
    **{name: partial(text.load, name) for name in text.CORPORA},
}

__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "Examples",
    "Split",
    "Task",
    "augment",
    "eval_batches",
    "load",
    "standardize",
    "train_batch",
]


def load(settings: Mapping[str, Any]) -> Dataset:
    """Load the data set that a config names.

    Args:
      settings: `name`, a key of `DATASETS` or any set of images that is prepared in `data_dir`, and what its loader
        takes; the rest is ignored.

    Returns:
      The `Dataset`.

    Raises:
      UserError: unknown name, missing data or a corrupt cache file.

    Example:
      >>> load({"name": "digits", "validation": 100, "data_dir": "", "cache_dir": ""}).evaluation.labels.shape
      (100,)
    """
    name = settings["name"]
    others = [name for name in prepared(folder_of(settings.get("data_dir", ""))) if name not in DATASETS]
    offered = DATASETS | {other: partial(records.load, other) for other in (*others, *records.NAMES)}
    loader = lookup(offered, name, "data set")
    taken = inspect.signature(loader).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    return loader(**{name: value for name, value in settings.items() if name != "name" and (every or name in taken)})
