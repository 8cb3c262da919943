"""Images of one's own as arrays in one .npz file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from td.data.base import Dataset
from td.data.in_memory import Split, hold_out
from td.data.task import classification
from td.errors import UserError
from td.io.files import load_arrays


def load(path: str = "", validation: int = 0, pad: int = 0, flip: bool = False) -> Dataset:
    """Load `train_images`, `train_labels`, `test_images` and `test_labels`, the whole of them into memory."""
    if not path:
        raise UserError("data.path is empty: name a .npz file of train_images, train_labels, test_images, test_labels")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data.path: there is no file {file}")
    arrays = load_arrays(file, f"{file} is not an .npz file of arrays, or damaged", "write it with np.savez")
    train, test = (_split(file, arrays, name) for name in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(f"{file}: training images are {train.images.shape[1:]}, test images {test.images.shape[1:]}")
    new = sorted({*test.labels.tolist()} - {*train.labels.tolist()})
    if new:
        raise UserError(
            f"{file}: the classes of train and test differ: test_labels has {new}, which train_labels lacks"
        )
    num_classes = int(train.labels.max()) + 1
    identity = hashlib.sha256()
    for array in (*train, *test):
        identity.update(np.ascontiguousarray(array).tobytes())
    held = hold_out(train, test, validation)
    return Dataset(*held, num_classes, classification(pad, flip), identity=identity.hexdigest())


def _split(file: Path, arrays: Mapping[str, np.ndarray], name: str) -> Split:
    for what in (f"{name}_images", f"{name}_labels"):
        if what not in arrays:
            raise UserError(f"{file} has no array {what}: it has {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise UserError(f"{file}: {name}_images is {_of(images)}: give uint8 [n, height, width, channels]")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(f"{file}: {name}_labels is {_of(labels)}: give integers [{len(images)}], one an image")
    if labels.min() < 0:
        raise UserError(f"{file}: {name}_labels has {labels.min()}: number the classes from 0")
    return Split(images, labels.astype(np.int32))


def _of(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
