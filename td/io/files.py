"""Reading and writing files. A kill at any moment leaves the old file or the new one, never half of one."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from td.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name next to `path` to write to, and rename it to `path` if nothing went wrong."""
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
