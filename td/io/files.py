"""Writing files so that a kill at any moment leaves the old one or the new one, never half of one."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from td.errors import UserError


def _unique() -> str:
    # Not the process id: containers that share a folder count theirs from 1 each.
    return uuid.uuid4().hex[:12]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it onto `path` if nothing went wrong.

    Example:
      >>> import tempfile
      >>> target = Path(tempfile.mkdtemp()) / "a.txt"
      >>> with replacing(target) as temporary:
      ...     _ = temporary.write_text("whole")
      >>> target.read_text(), [p.name for p in target.parent.iterdir()]
      ('whole', ['a.txt'])
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{_unique()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, and rename it to `path` if nothing went wrong; else nothing is left.

    Example:
      >>> import tempfile
      >>> target = Path(tempfile.mkdtemp()) / "out"
      >>> with new_folder(target) as temporary:
      ...     _ = (temporary / "a.txt").write_text("whole")
      >>> [p.relative_to(target.parent).as_posix() for p in target.parent.rglob("*")]
      ['out', 'out/a.txt']
    """
    temporary = path.with_name(f".{path.name}.{_unique()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; nothing is left of it: make room, or choose another "
            "folder, and give the same command again"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_arrays(path: Path, complaint: str, advice: str) -> dict[str, np.ndarray]:
    """Read an .npz file; a damaged one is a `UserError`: the complaint, why, the advice."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged zip shows as one of half a dozen unrelated types
        raise UserError(f"{complaint} ({error}): {advice}") from None
