"""The data sets, whole in memory, and the one table that names them in configs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from td.data import digits, images
from td.data.augment import augment, standardize
from td.data.base import Batch, Dataset, Split, eval_batches, train_batch
from td.errors import lookup

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": lambda validation, **_: digits.load(validation),
    **{name: partial(images.load, name) for name in images.NAMES},
}

__all__ = ["DATASETS", "Batch", "Dataset", "Split", "augment", "eval_batches", "load", "standardize", "train_batch"]


def load(settings: Mapping[str, Any]) -> Dataset:
    """Load the data set that a config names.

    Args:
      settings: `name`, a key of `DATASETS`; `validation`, examples to hold out; `data_dir` and `cache_dir`.

    Returns:
      The `Dataset`.

    Raises:
      UserError: unknown name, missing data or a corrupt cache file.

    Example:
      >>> load({"name": "digits", "validation": 100, "data_dir": "", "cache_dir": ""}).evaluation.labels.shape
      (100,)
    """
    loader = lookup(DATASETS, settings["name"], "data set")
    return loader(**{name: settings[name] for name in ("validation", "data_dir", "cache_dir")})
