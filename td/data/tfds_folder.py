"""Prepared TFDS data sets, found by their folders alone and read without TensorFlow."""

import os
from pathlib import Path

import platformdirs
import tensorflow_datasets as tfds

from td.errors import UserError


def folder_of(data_dir: str = "") -> Path:
    """Return the folder of prepared data: the setting, else TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR).expanduser()


def find(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    """Return the newest prepared version, from its folder alone: its code and TensorFlow are not needed."""
    versions = sorted(
        (folder / name).glob("*/dataset_info.json"),
        key=lambda info: [int(part) for part in info.parent.name.split(".") if part.isdigit()],
    )
    builders = [tfds.builder_from_directory(version.parent) for version in reversed(versions)]
    for builder in builders:
        if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
            return builder
    command = f"run `td-prepare-data {name} --data_dir={folder}`"
    if builders:
        raise UserError(f"{builders[0].data_dir} is not in array_record format: delete it and {command}")
    there = ", ".join(prepared(folder)) or "nothing"
    raise UserError(f"{name} is not prepared in {folder} ({there} is): {command}, or set TFDS_DATA_DIR")


def prepared(folder: Path) -> list[str]:
    """List the data sets in a folder."""
    infos = [*folder.glob("*/*/dataset_info.json"), *folder.glob("*/*/*/dataset_info.json")]
    return sorted({info.parent.parent.relative_to(folder).as_posix() for info in infos})


def cache_folder(cache_dir: str) -> Path:
    """Return the folder of decoded data."""
    return Path(cache_dir).expanduser() if cache_dir else platformdirs.user_cache_path("td")
