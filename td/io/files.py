"""Files on disk and in Google Cloud Storage. A kill at any moment leaves the old file or the new one, never half."""

import importlib.util
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from etils import epath

from td.errors import UserError

# gcsfs would remember sizes and names of files that other processes, and TensorStore, have written since.
os.environ.setdefault("FSSPEC_GCS", '{"use_listings_cache": false}')

Path: TypeAlias = pathlib.Path | epath.Path
"""A path on disk, or gs://BUCKET/..., where there are no folders, and files are written whole."""


def as_path(text: str) -> Path:
    """Make a path of a disk or, from gs://, of a store."""
    if "://" not in text:
        return pathlib.Path(text)
    if not text.startswith("gs://"):
        raise UserError(f"{text} is neither a local path nor gs://BUCKET/...")
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{text} needs gcsfs: pip install -e '.[gcs]'")
    return epath.Path(text)


def absolute(path: Path) -> Path:
    """Return the absolute path; one of a store always is."""
    return path if isinstance(path, epath.Path) else path.resolve()


@contextmanager
def staged(folder: Path) -> Iterator[pathlib.Path]:
    """Yield a folder to write to: itself or, for one in a store, one on disk whose files are uploaded at the end."""
    if not isinstance(folder, epath.Path):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield pathlib.Path(temporary)
        upload(pathlib.Path(temporary), folder)


def upload(stage: pathlib.Path, folder: Path) -> None:
    """Upload what is in a staged folder so far."""
    for file in stage.rglob("*") if stage != folder else ():
        if file.is_file():
            (folder / file.relative_to(stage)).write_bytes(file.read_bytes())


@contextmanager
def replacing(path: Path) -> Iterator[pathlib.Path]:
    """Yield a temporary name to write to, and replace `path` by it if nothing went wrong."""
    if isinstance(path, epath.Path):
        with staged(path.parent) as folder:
            yield folder / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process id: containers that share a folder count theirs from 1 each.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def load_arrays(path: Path, complaint: str, advice: str) -> dict[str, np.ndarray]:
    """Read an .npz file; a damaged one is a `UserError`: the complaint, why, the advice."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged zip shows as one of half a dozen unrelated types
        raise UserError(f"{complaint} ({error}): {advice}") from None
