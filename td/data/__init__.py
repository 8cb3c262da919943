"""The data sets, and the one table that names them in configs."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from td.data import cifar, digits, npz, translation
from td.data.augment import augment, standardize
from td.data.base import Batch, Dataset, Examples
from td.data.in_memory import Split
from td.data.task import Task
from td.data.tfds_folder import folder_of, prepared
from td.errors import UserError, entry, lookup

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits.load,
    "npz": npz.load,
    **{name: partial(cifar.load, name) for name in cifar.NAMES},
    **{name: partial(translation.load, name) for name in translation.CORPORA},
}

IMAGE_SETTINGS: Mapping[str, Any] = {
    "path": "",  # of your own images: a folder for the name "folder", a file for "npz"
    "pad": 0,  # pixels around an image in memory before a random crop
    "flip": False,  # whether training images are mirrored at random
    "image_size": 224,  # of images that stay on disk, which are cropped at random
    "workers": 0,  # processes that decode those; 0: threads
    "skip_corrupt": False,  # whether the next one takes the place of one of those that cannot be decoded
}
"""Settings that some sets of images take, with values that ask for nothing."""

ON_DISK = ("folder", "imagenet2012")
"""Images too many for memory that are offered wherever they lie, and also where they are not prepared yet."""

__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "Examples",
    "Split",
    "Task",
    "augment",
    "load",
    "standardize",
]


def load(settings: Mapping[str, Any]) -> Dataset:
    """Load the data set that a config names."""
    name = settings["name"]
    if ":" in name:
        found = _call(entry(DATASETS, name, "data set"), settings)
        if not isinstance(found, Dataset):
            raise UserError(f"data set {name!r} gives a {type(found).__name__}: it must give a td.data.Dataset")
        return found
    others = [name for name in prepared(folder_of(settings.get("data_dir", ""))) if name not in DATASETS]
    loader = lookup({**DATASETS, **dict.fromkeys((*others, *ON_DISK))}, name, "data set") or _from_disk(name)
    _refuse_ignored(loader, settings)
    return _call(loader, settings)


def _refuse_ignored(loader: Callable[..., Dataset], settings: Mapping[str, Any]) -> None:
    taken = inspect.signature(loader).parameters
    for setting, nothing in IMAGE_SETTINGS.items():
        value = settings.get(setting, nothing)
        if setting not in taken and value != nothing:
            what = f"data.{setting}={value!r} means nothing to the data set {settings['name']!r}"
            raise UserError(f"{what}: give --config.data.{setting}={nothing}")


def _call(loader: Callable[..., Dataset], settings: Mapping[str, Any]) -> Dataset:
    """The settings that a loader takes; a config has those of all."""
    taken = inspect.signature(loader).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    return loader(**{name: value for name, value in settings.items() if name != "name" and (every or name in taken)})


def _from_disk(name: str) -> Callable[..., Dataset]:
    from td.data import image_folder, imagenet  # Grain, which they read with, takes half a second to import

    return image_folder.load if name == "folder" else partial(imagenet.load, name)
