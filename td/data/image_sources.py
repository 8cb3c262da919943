"""Images on disk: your own folders, and prepared TFDS sets that do not fit in memory, ImageNet above all."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core.decode import SkipDecoding

from td.data.base import Dataset, classification
from td.data.image_files import image_splits
from td.data.tfds_folder import find, folder_of
from td.errors import UserError
from td.io.progress import progress

SUFFIXES = (".jpeg", ".jpg", ".png")


class LabelledFiles(NamedTuple):
    """Image files and their classes: a `Source`."""

    folder: str  # of the split
    files: tuple[str, ...]  # below that folder
    labels: tuple[int, ...]  # one per file

    def read(self, index: int) -> tuple[bytes, int]:
        return Path(self.folder, self.files[index]).read_bytes(), self.labels[index]

    def name(self, index: int) -> str:
        return str(Path(self.folder, self.files[index]))


def load_folder(
    path: str = "",
    image_size: int = 224,
    validation: int = 0,
    flip: bool = False,
    workers: int = 0,
    skip_corrupt: bool = False,
) -> Dataset:
    """Load a folder of images; classes are the names of its folders, sorted."""
    folder = Path(path).expanduser()
    if not path or not (folder / "train").is_dir():
        raise UserError(f"data.path={path!r}: name a folder that has train/CLASS/*.png or *.jpg, and val or test")
    scored = [folder / name for name in ("val", "validation", "test") if (folder / name).is_dir()]
    if not (scored or validation):
        raise UserError(f"{folder} has no folder val or test: add one, or set data.validation to hold out images")
    splits = [folder / "train"] + ([] if validation else scored[:1])
    classes = [_classes(split) for split in splits]
    if classes[0] != classes[-1]:
        odd = ", ".join(sorted({*classes[0]} ^ {*classes[-1]}))
        raise UserError(f"{splits[0]} and {splits[-1]} differ in their classes: only one of them has {odd}")
    sources = [_files(split, classes[0]) for split in splits]
    sized = [(source, len(source.files)) for source in sources]
    files = image_splits(sized, validation, image_size, flip, workers, skip_corrupt)
    names = tuple(classes[0])
    return Dataset(*files, len(names), classification(), identity=_identity(sources), class_names=names)


def _identity(sources: list[LabelledFiles]) -> str:
    # Of names, not of content: a corrupt image may be replaced before a run is resumed.
    listed = [zip(source.files, source.labels, strict=True) for source in sources]
    text = "".join("".join(f"{file}\0{label}\n" for file, label in files) + "\n" for files in listed)
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _classes(split: Path) -> list[str]:
    classes = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise UserError(f"{split} has no images: it needs a folder of images for every class")
    return classes


def _files(split: Path, classes: list[str]) -> LabelledFiles:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(progress(classes, desc=f"list {split}", unit="class", delay=3)):
        found = [path for path in (split / name).rglob("*") if path.suffix.lower() in SUFFIXES]
        images = sorted(path.relative_to(split).as_posix() for path in found if not path.name.startswith("."))
        if not images:
            raise UserError(f"{split / name} has no images: their names end in {', '.join(SUFFIXES)}")
        files += images
        labels += [label] * len(images)
    return LabelledFiles(str(split), tuple(files), tuple(labels))


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


def load_prepared(
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
