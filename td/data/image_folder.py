"""Your own images: a folder with train, and val or test, in each of them a folder of images per class."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from td.data.base import Dataset
from td.data.image_files import image_splits
from td.data.task import classification
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

    @property
    def repair(self) -> str:
        return "replace it"


def load(
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
