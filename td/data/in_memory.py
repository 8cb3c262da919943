"""Images held in memory: scikit-learn's digits, your own arrays, and CIFAR and MNIST, decoded once by TFDS."""

import hashlib
from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32, UInt8

from td.data.base import WHOLE, Batch, Dataset, Shard, classification, epoch_order, images_per_step, split_indices
from td.data.tfds_folder import cache_folder, find, folder_of
from td.errors import UserError
from td.io.files import load_arrays, replacing
from td.io.progress import progress

# Every step asks for the orders of its epochs, and a population for those of every seed. 64 of 60,000 images are 31 MB.
_order = lru_cache(maxsize=64)(epoch_order)

TFDS_NAMES = ("cifar10", "cifar100", "fashion_mnist", "mnist")


class Split(NamedTuple):
    """Images, uint8 `[n, height, width, channels]`, and labels, int32 `[n]`: an `Examples`."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, "n"]

    @property
    def size(self) -> int:
        return len(self.labels)

    def examples_per_step(self, batch_size: int) -> float:
        return images_per_step(batch_size, self.size)

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        return (batch_size,)

    def blank_batch(self, rows: int) -> Batch:
        return Batch.blank(rows, self.images.shape[1:])

    def train_indices(self, step: int, batch_size: int, seed: int) -> Int32[np.ndarray, "batch"]:
        """Return positions `step * batch_size` onwards of an endless sequence of shuffled epochs."""
        epochs, positions = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), self.size)
        chosen = np.empty(batch_size, np.int32)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = _order(seed, int(epoch), self.size)[positions[here]]
        return chosen

    def train_batch(self, step: int, batch_size: int, seed: int, shard: Shard = WHOLE) -> Batch:
        chosen = self.train_indices(step, batch_size, seed)[shard.of(batch_size)]
        return Batch(self.images[chosen], self.labels[chosen], np.ones(len(chosen), np.float32))

    def train_batches(
        self, batch_size: int, seed: int, first: int, shard: Shard = WHOLE
    ) -> Generator[Batch, None, None]:
        return (self.train_batch(step, batch_size, seed, shard) for step in count(first))

    def train_index_batches(
        self, batch_size: int, seed: int, first: int, shard: Shard = WHOLE
    ) -> Generator[np.ndarray, None, None]:
        """Yield the indices of the examples of those batches."""
        return (self.train_indices(step, batch_size, seed)[shard.of(batch_size)] for step in count(first))

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        return self.train_batches(batch_size, seed, 0)  # images are augmented in the step

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every example once, in order; the last batch is padded with examples of weight 0."""
        batch_size = min(batch_size, self.size)
        for start in range(0, self.size, batch_size):
            indices = np.arange(start, start + batch_size)
            chosen = np.minimum(indices, self.size - 1)
            yield Batch(self.images[chosen], self.labels[chosen], (indices < self.size).astype(np.float32))


def hold_out(train: Split, test: Split, validation: int) -> tuple[Split, Split]:
    """Return the splits to train on and to score: the test split, or `validation` training examples."""
    if validation == 0:
        return train, test
    rest, chosen = split_indices(train.size, validation)
    return Split(train.images[rest], train.labels[rest]), Split(train.images[chosen], train.labels[chosen])


def load_digits(validation: int = 0, pad: int = 0, flip: bool = False) -> Dataset:
    """Load scikit-learn's 1,797 scanned digits of 8x8 pixels: 1,400 to train on, 397 to test on, in a fixed order."""
    # Its file alone: to import scikit-learn takes longer than all else that a command imports.
    file = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.random.default_rng(0).permutation(np.loadtxt(str(file), delimiter=","))
    images, labels = (15 * table[:, :-1]).astype(np.uint8).reshape(-1, 8, 8, 1), table[:, -1].astype(np.int32)
    splits = hold_out(Split(images[:1400], labels[:1400]), Split(images[1400:], labels[1400:]), validation)
    return Dataset(*splits, 10, classification(pad, flip), class_names=tuple("0123456789"))


def load_npz(path: str = "", validation: int = 0, pad: int = 0, flip: bool = False) -> Dataset:
    """Load `train_images`, `train_labels`, `test_images` and `test_labels` from an .npz file."""
    file = Path(path).expanduser()
    if not file.is_file():
        names = "train_images, train_labels, test_images, test_labels"
        raise UserError(f"data.path={path!r} is not a file: name a .npz file of {names}")
    arrays = load_arrays(file, f"{file} is not an .npz file of arrays, or damaged", "write it with np.savez")
    train, test = (_own_split(file, arrays, name) for name in ("train", "test"))
    unseen = sorted({*test.labels.tolist()} - {*train.labels.tolist()})
    if unseen:
        raise UserError(f"{file}: test_labels has {unseen}, which train_labels lacks")
    identity = hashlib.sha256()
    for array in (*train, *test):
        identity.update(np.ascontiguousarray(array).tobytes())
    splits, num_classes = hold_out(train, test, validation), int(train.labels.max()) + 1
    return Dataset(*splits, num_classes, classification(pad, flip), identity=identity.hexdigest())


def _own_split(file: Path, arrays: Mapping[str, np.ndarray], name: str) -> Split:
    missing = {f"{name}_images", f"{name}_labels"} - set(arrays)
    if missing:
        raise UserError(f"{file} has no array {min(missing)}: it has {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        found = f"{name}_images is {images.dtype} {list(images.shape)}"
        raise UserError(f"{file}: {found}: give uint8 [n, height, width, channels]")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or labels.min() < 0:
        found = f"{labels.dtype} {list(labels.shape)}"
        raise UserError(f"{file}: {name}_labels is {found}: give integers [{len(images)}], numbered from 0")
    return Split(images, labels.astype(np.int32))


def load_tfds(
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
