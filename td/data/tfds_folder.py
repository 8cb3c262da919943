"""Data sets that TFDS has prepared: found by their folders alone, read without TensorFlow."""

import os
from pathlib import Path

import numpy as np
import platformdirs
import tensorflow_datasets as tfds

from td.errors import UserError
from td.io.files import load_arrays


def folder_of(data_dir: str = "") -> Path:
    """Where TFDS data lies."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR).expanduser()


def find(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    """The newest prepared version, from its folder alone: no code of the data set and no TensorFlow is needed."""
    for version in sorted((folder / name).glob("*/dataset_info.json"), key=_version_number, reverse=True):
        builder = tfds.builder_from_directory(version.parent)
        if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
            return builder
    there = ", ".join(prepared(folder)) or "nothing"
    raise UserError(
        f"{name} is not prepared in {folder} ({there} is): run `td-prepare-data {name} "
        f"--data_dir={folder}` (scripts/prepare_data.py), or say where it lies with TFDS_DATA_DIR or "
        "--config.data.data_dir"
    )


def prepared(folder: Path) -> list[str]:
    """The names of the data sets that a folder has."""
    infos = [*folder.glob("*/*/dataset_info.json"), *folder.glob("*/*/*/dataset_info.json")]
    return sorted({info.parent.parent.relative_to(folder).as_posix() for info in infos})


def _version_number(info: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in info.parent.name.split(".") if part.isdigit())


def cache_folder(cache_dir: str) -> Path:
    """Where decoded data is kept."""
    return Path(cache_dir).expanduser() if cache_dir else platformdirs.user_cache_path("td")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a cache file."""
    return load_arrays(path, f"cache file {path} is corrupt", "delete it and run again")
