"""Text files, plain, `.gz` or `.xz`, one sentence a line."""

import gzip
import logging
import lzma
from pathlib import Path
from typing import Any

from td.errors import UserError

LOG = logging.getLogger(__name__)

Lines = tuple[list[str], list[str]]
"""Sentences and their translations."""


def existing(name: str, path: str) -> Path:
    """Check that a file is there.

    Example:
      >>> existing("data.train_source", "")
      Traceback (most recent call last):
        ...
      td.errors.UserError: data.train_source is empty: name a text file, plain, .gz or .xz
    """
    if not path:
        raise UserError(f"{name} is empty: name a text file, plain, .gz or .xz")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{name}: there is no file {file}")
    return file


def _read(path: Path) -> list[str]:
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            return [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def parallel(source: Path, target: Path) -> Lines:
    """Read two files that are translations of each other, without the pairs of which one side is blank."""
    first, second = _read(source), _read(target)
    if len(first) != len(second):
        raise UserError(f"{source} has {len(first)} lines, {target} has {len(second)}: give line by line translations")
    return without_blanks(first, second, f"{source} and {target}")


def without_blanks(source: list[str], target: list[str], where: str) -> Lines:
    """The pairs of which neither side is blank."""
    pairs = [(a, b) for a, b in zip(source, target, strict=True) if a.strip() and b.strip()]
    if not pairs:
        raise UserError(f"{where} have no line that is not blank")
    left_out = len(source) - len(pairs)
    if left_out:
        LOG.warning("%d of %d pairs of %s are blank on one side: left out", left_out, len(source), where)
    return [a for a, _ in pairs], [b for _, b in pairs]
