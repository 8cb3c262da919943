"""CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST: decoded once by TFDS, then kept as arrays in a cache folder."""

import hashlib
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from td.data.base import Dataset
from td.data.in_memory import Split, hold_out
from td.data.task import classification
from td.data.tfds_folder import cache_folder, find, folder_of
from td.errors import UserError
from td.io.files import load_arrays, replacing
from td.io.progress import progress

NAMES = ("cifar10", "cifar100", "fashion_mnist", "mnist")


def load(
    name: str, validation: int = 0, pad: int = 0, flip: bool = False, data_dir: str = "", cache_dir: str = ""
) -> Dataset:
    """Load a whole TFDS image classification set into memory."""
    builder, cache = find(name, folder_of(data_dir)), cache_folder(cache_dir)
    splits = {split: _cached(builder, split, cache) for split in ("train", "test")}
    label, held_out = builder.info.features["label"], hold_out(splits["train"], splits["test"], validation)
    return Dataset(*held_out, label.num_classes, classification(pad, flip), class_names=tuple(label.names))


def _cached(builder: tfds.core.DatasetBuilder, split: str, cache: Path) -> Split:
    try:
        # Of the content: times and folders change with every copy, and 170 MB take a tenth of a second.
        records = b"".join(Path(file).read_bytes() for file in builder.info.splits[split].filepaths)
        digest = hashlib.sha256(records).hexdigest()[:12]
        path = cache / f"{builder.name}-{builder.version}-{split}-{digest}.npz"
        decoded = None if path.exists() else _decode(builder, split)
    except (RuntimeError, ValueError, OSError) as error:  # array_record, if a file is missing or truncated
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{builder.data_dir} is damaged ({reason}): delete it and prepare it again") from None
    if decoded:
        with replacing(path) as temporary:
            np.savez(temporary, images=decoded.images, labels=decoded.labels)
    arrays = load_arrays(path, f"cache file {path} is corrupt", "delete it and run again")
    return Split(arrays["images"], arrays["labels"])


def _decode(builder: tfds.core.DatasetBuilder, split: str) -> Split:
    source = builder.as_data_source(split)
    images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for i, example in enumerate(progress(source, desc=f"decode {builder.name} {split}", unit="image")):
        images[i], labels[i] = example["image"], example["label"]
    return Split(images, labels)
