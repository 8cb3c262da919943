"""CIFAR-10, CIFAR-100 and MNIST: read once through TFDS, then kept as plain arrays in a cache folder."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import platformdirs
import tensorflow_datasets as tfds

from td.data.base import Dataset, Split, hold_out
from td.errors import UserError, check_choice
from td.files import replacing
from td.progress import progress

NAMES = ("cifar10", "cifar100", "mnist")


def load(name: str, validation: int = 0, data_dir: str = "", cache_dir: str = "") -> Dataset:
    """Load a TFDS image classification set whole.

    Args:
      name: the TFDS name: "cifar10", "cifar100" or "mnist".
      validation: training examples to hold out and score instead of the test split.
      data_dir: where TFDS data lies; empty: `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      cache_dir: where decoded arrays are kept; empty: the user's cache folder.

    Returns:
      The `Dataset`.

    Raises:
      UserError: the data is not prepared, or a cache file is corrupt.

    Example:
      >>> load("cifar10", data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      td.errors.UserError: cifar10 is not prepared in /nowhere: run `python scripts/prepare_data.py cifar10 ...
    """
    builder = _builder(name, _folder(data_dir))
    cache = Path(cache_dir).expanduser() if cache_dir else platformdirs.user_cache_path("td")
    splits = {split: _cached(builder, split, cache) for split in ("train", "test")}
    num_classes = builder.info.features["label"].num_classes
    return hold_out(splits["train"], splits["test"], num_classes, validation)


def prepare(name: str, data_dir: str = "") -> str:
    """Download a data set and prepare it as array_record, the one step that needs TensorFlow.

    Args:
      name: "cifar10", "cifar100" or "mnist".
      data_dir: as in `load`.

    Returns:
      Where it lies, for the screen.

    Raises:
      UserError: unknown name, or TensorFlow is not installed.

    Example:
      >>> prepare("cifar")
      Traceback (most recent call last):
        ...
      td.errors.UserError: name='cifar' is not known: did you mean 'cifar10'? (valid: cifar10, cifar100, mnist)
    """
    check_choice("name", name, NAMES)
    folder = _folder(data_dir)
    try:
        return f"{name} is ready in {_builder(name, folder).data_dir}"
    except UserError:
        pass
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError("preparing a data set needs TensorFlow (reading it does not): pip install '.[prepare]'")
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return f"{name} is ready in {builder.data_dir}"


def _folder(data_dir: str) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR).expanduser()


def _builder(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    """The newest prepared version, from its folder alone: no code of the data set and no TensorFlow is needed."""
    for version in sorted((folder / name).glob("*/dataset_info.json"), key=_version_number, reverse=True):
        builder = tfds.builder_from_directory(version.parent)
        if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
            return builder
    raise UserError(
        f"{name} is not prepared in {folder}: run `python scripts/prepare_data.py {name} --data_dir={folder}`, "
        "or say where it lies with TFDS_DATA_DIR or --config.data.data_dir"
    )


def _version_number(info: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in info.parent.name.split(".") if part.isdigit())


def _cached(builder: tfds.core.DatasetBuilder, split: str, cache: Path) -> Split:
    path = cache / f"{builder.name}-{builder.version}-{split}.npz"
    if not path.exists():
        try:
            decoded = _decode(builder, split)
        except (RuntimeError, ValueError, OSError) as error:  # what array_record makes of a lost or cut file
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{builder.data_dir} is damaged ({reason}): delete it and prepare it again") from None
        with replacing(path) as temporary:
            np.savez(temporary, images=decoded.images, labels=decoded.labels)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            split_arrays = Split(arrays["images"], arrays["labels"])
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged zip shows as one of half a dozen unrelated types
        raise UserError(f"cache file {path} is corrupt ({error}): delete it and run again") from None
    expected = builder.info.splits[split].num_examples
    if [len(array) for array in split_arrays] != [expected, expected]:
        raise UserError(f"cache file {path} is corrupt (not {expected} examples): delete it and run again")
    return split_arrays


def _decode(builder: tfds.core.DatasetBuilder, split: str) -> Split:
    source = builder.as_data_source(split)
    height, width, channels = builder.info.features["image"].shape
    images = np.empty((len(source), height, width, channels), np.uint8)
    labels = np.empty(len(source), np.int32)
    for i, example in enumerate(progress(source, desc=f"decode {builder.name} {split}", unit="image")):
        images[i], labels[i] = example["image"], example["label"]
    return Split(images, labels)
