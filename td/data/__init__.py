"""The data sets, and the one table that names them in configs."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from td.data import digits, images, text
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

ON_DISK = ("imagenet2012",)
"""Images too many for memory that are offered also where they are not prepared yet."""

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
    loader = lookup({**DATASETS, **dict.fromkeys((*others, *ON_DISK))}, name, "data set") or _from_disk(name)
    taken = inspect.signature(loader).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    return loader(**{name: value for name, value in settings.items() if name != "name" and (every or name in taken)})


def _from_disk(name: str) -> Callable[..., Dataset]:
    from td.data import records  # Grain, which it reads with, takes half a second to import

    return partial(records.load, name)
