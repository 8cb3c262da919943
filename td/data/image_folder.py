"""Images of one's own: a folder with train, and val or test, in each of them a folder of images a class."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from td.data.base import Dataset
from td.data.image_files import split_files
from td.data.task import classification
from td.errors import UserError, check_at_least
from td.io.progress import progress

ENDINGS = (".jpeg", ".jpg", ".png")

SCORED = ("val", "validation", "test")
"""Folders of what is scored; the first that is there."""


class LabelledFiles(NamedTuple):
    """Image files and their classes: a `Source`."""

    folder: str  # of the split
    files: tuple[str, ...]  # below that folder
    labels: tuple[int, ...]  # one a file

    def read(self, index: int) -> tuple[bytes, int]:
        return Path(self.folder, self.files[index]).read_bytes(), self.labels[index]

    def name(self, index: int) -> str:
        return str(Path(self.folder, self.files[index]))

    @property
    def whole(self) -> str:
        return f"image of {self.folder}"

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
    """Load a folder of images; the classes are the names of the folders, sorted."""
    check_at_least("data.image_size", image_size, 1)
    check_at_least("data.workers", workers)
    if not path:
        raise UserError("data.path is empty: name a folder that has train/CLASS/*.png or *.jpg, and val or test")
    folder = Path(path).expanduser()
    if not (folder / "train").is_dir():
        raise UserError(f"data.path: there is no folder {folder / 'train'}")
    scored = next((folder / name for name in SCORED if (folder / name).is_dir()), None)
    if not (scored or validation):
        raise UserError(
            f"{folder} has no folder val or test: add one, or hold out training images with data.validation"
        )
    splits = [folder / "train", *([scored] if scored and not validation else [])]
    classes = [_classes(split) for split in splits]
    if classes[0] != classes[-1]:
        odd = ", ".join(sorted({*classes[0]} ^ {*classes[-1]}))
        raise UserError(f"{splits[0]} and {splits[-1]} differ in their classes: only one of them has {odd}")
    sources = [_files(split, classes[0]) for split in splits]
    sized = [(source, len(source.files)) for source in sources]
    train, evaluation = split_files(sized, validation, image_size, flip, workers, skip_corrupt)
    names = tuple(classes[0])
    return Dataset(train, evaluation, len(names), classification(), identity=_identity(sources), class_names=names)


def _identity(sources: list[LabelledFiles]) -> str:
    # Of names, not of content: a corrupt image can be replaced, and a run goes on in the same order.
    digest = hashlib.sha256()
    for source in sources:
        for file, label in zip(source.files, source.labels, strict=True):
            digest.update(os.fsencode(f"{file}\0{label}\n"))
        digest.update(b"\n")
    return digest.hexdigest()


def _classes(split: Path) -> list[str]:
    classes = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise UserError(f"{split} has no images: it needs a folder of images for every class")
    return classes


def _files(split: Path, classes: list[str]) -> LabelledFiles:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(progress(classes, desc=f"list {split}", unit="class", delay=3)):
        found = [path for path in (split / name).rglob("*") if path.suffix.lower() in ENDINGS]
        here = sorted(path.relative_to(split).as_posix() for path in found if not path.name.startswith("."))
        if not here:
            raise UserError(f"{split / name} has no images: they are known by their endings {', '.join(ENDINGS)}")
        files += here
        labels += [label] * len(here)
    return LabelledFiles(str(split), tuple(files), tuple(labels))
