"""Data sets, and the table that names them in configs."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from td.data import translation
from td.data.base import Batch, Dataset, Examples, Task, augment, standardize
from td.data.in_memory import TFDS_NAMES, Split, load_digits, load_npz, load_tfds
from td.data.tfds_folder import folder_of, prepared
from td.errors import UserError, check_choice, entry

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": load_digits,
    "npz": load_npz,
    **{name: partial(load_tfds, name) for name in TFDS_NAMES},
    **{name: partial(translation.load, name) for name in translation.CORPORA},
}

ON_DISK = ("folder", "imagenet2012")
"""Images that stay on disk. Other prepared TFDS sets are found by the names of their folders."""

__all__ = ["DATASETS", "Batch", "Dataset", "Examples", "Split", "Task", "augment", "load", "standardize"]


def load(settings: Mapping[str, Any]) -> Dataset:
    """Load the data set that a config names."""
    found = _loader(settings)(**taken(settings))
    if not isinstance(found, Dataset):
        name, kind = settings["name"], type(found).__name__
        raise UserError(f"data set {name!r} returns a {kind}: it must return a td.data.Dataset")
    return found


def taken(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Select the settings that a data set takes; a config has those of all."""
    known = inspect.signature(_loader(settings)).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {name: value for name, value in settings.items() if name != "name" and (every or name in known)}


def _loader(settings: Mapping[str, Any]) -> Callable[..., Dataset]:
    name = settings["name"]
    if ":" in name:
        return entry(DATASETS, name, "data set")
    if name in DATASETS:
        return DATASETS[name]
    check_choice("data.name", name, (*DATASETS, *ON_DISK, *prepared(folder_of(settings.get("data_dir", "")))))
    from td.data import image_sources  # Grain takes half a second to import

    return image_sources.load_folder if name == "folder" else partial(image_sources.load_prepared, name)
