"""Prepared TFDS sets of images too many for memory, ImageNet above all."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core.decode import SkipDecoding

from td.data.base import Dataset
from td.data.image_files import image_splits
from td.data.task import classification
from td.data.tfds_folder import find, folder_of
from td.errors import UserError


@lru_cache(maxsize=4)
def _source(folder: str, split: str) -> Any:
    builder = tfds.builder_from_directory(folder)
    return builder.as_data_source(split, decoders={"image": SkipDecoding()})


class PreparedSplit(NamedTuple):
    """A split of a prepared set: a `Source`."""

    folder: str  # of the prepared data set
    split: str

    def read(self, index: int) -> tuple[bytes, int]:
        record = _source(self.folder, self.split)[index]
        return record["image"], record["label"]

    def name(self, index: int) -> str:
        return f"record {index} of {self.split} in {self.folder}"

    @property
    def repair(self) -> str:
        return "prepare the data again"


def load(
    name: str,
    image_size: int = 224,
    validation: int = 0,
    flip: bool = False,
    workers: int = 0,
    skip_corrupt: bool = False,
    data_dir: str = "",
) -> Dataset:
    """Load any prepared TFDS set of labelled images."""
    builder = find(name, folder_of(data_dir))
    features, splits = builder.info.features, builder.info.splits
    label = features["label"] if {"image", "label"} <= set(features) else None
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{name} has {', '.join(features)}: it needs features image and label, a ClassLabel")
    scored = next((split for split in ("validation", "test") if split in splits), "")
    if "train" not in splits or not (scored or validation):
        raise UserError(f"{name} has the splits {', '.join(splits)}: it needs train, and validation or test")
    used, folder = [split for split in ("train", scored) if split], str(Path(builder.data_dir))
    sources = [(PreparedSplit(folder, split), splits[split].num_examples) for split in used]
    files = image_splits(sources, validation, image_size, flip, workers, skip_corrupt)
    return Dataset(*files, label.num_classes, classification(), class_names=tuple(label.names))
