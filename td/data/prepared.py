"""Data sets that TFDS has prepared: found by their folders alone, read without TensorFlow."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import platformdirs
import tensorflow_datasets as tfds

from td.errors import UserError, check_choice

DOWNLOADS = ("cifar10", "cifar100", "imagenet2012", "mnist", "wmt14_translate/de-en")
"""What `prepare` offers. Any other prepared set can be read as well."""


def prepare(name: str, data_dir: str = "") -> str:
    """Download a data set and prepare it as array_record, the one step that needs TensorFlow.

    Args:
      name: one of `DOWNLOADS`.
      data_dir: where to; empty: `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
      Where it lies, for the screen.

    Raises:
      UserError: unknown name, or TensorFlow is not installed.

    Example:
      >>> prepare("cifar")
      Traceback (most recent call last):
        ...
      td.errors.UserError: name='cifar' is not known: did you mean 'cifar10'? (valid: cifar10, cifar100, ...
    """
    check_choice("name", name, DOWNLOADS)
    folder = folder_of(data_dir)
    try:
        return f"{name} is ready in {find(name, folder).data_dir}"
    except UserError:
        pass
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError("preparing a data set needs TensorFlow (reading it does not): pip install '.[prepare]'")
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return f"{name} is ready in {builder.data_dir}"


def folder_of(data_dir: str = "") -> Path:
    """Where TFDS data lies.

    Args:
      data_dir: as the config says; empty: `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
      The folder.

    Example:
      >>> folder_of("/data").name
      'data'
    """
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR).expanduser()


def find(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    """The newest prepared version, from its folder alone: no code of the data set and no TensorFlow is needed.

    Args:
      name: the set's name, with its variant if it has one.
      folder: where TFDS data lies.

    Returns:
      A builder to read with `as_data_source`.

    Raises:
      UserError: it is not there; the line says what is.

    Example:
      >>> find("cifar10", Path("/nowhere"))
      Traceback (most recent call last):
        ...
      td.errors.UserError: cifar10 is not prepared in /nowhere (nothing is): run `python scripts/prepare_data.py ...
    """
    for version in sorted((folder / name).glob("*/dataset_info.json"), key=_version_number, reverse=True):
        builder = tfds.builder_from_directory(version.parent)
        if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
            return builder
    there = ", ".join(prepared(folder)) or "nothing"
    raise UserError(
        f"{name} is not prepared in {folder} ({there} is): run `python scripts/prepare_data.py {name} "
        f"--data_dir={folder}`, or say where it lies with TFDS_DATA_DIR or --config.data.data_dir"
    )


def prepared(folder: Path) -> list[str]:
    """The names of the data sets that a folder has.

    Args:
      folder: where TFDS data lies.

    Returns:
      Names for `find`, sorted.

    Example:
      >>> prepared(Path("/nowhere"))
      []
    """
    infos = [*folder.glob("*/*/dataset_info.json"), *folder.glob("*/*/*/dataset_info.json")]
    return sorted({info.parent.parent.relative_to(folder).as_posix() for info in infos})


def _version_number(info: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in info.parent.name.split(".") if part.isdigit())


def cache_folder(cache_dir: str) -> Path:
    """Where decoded data is kept.

    Args:
      cache_dir: as the config says; empty: the user's cache folder.

    Returns:
      The folder.

    Example:
      >>> cache_folder("/cache").name
      'cache'
    """
    return Path(cache_dir).expanduser() if cache_dir else platformdirs.user_cache_path("td")


def read_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """Read a cache file.

    Args:
      path: an `.npz` file.

    Returns:
      Its arrays.

    Raises:
      UserError: it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged zip shows as one of half a dozen unrelated types
        raise UserError(f"cache file {path} is corrupt ({error}): delete it and run again") from None
