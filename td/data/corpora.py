"""Parallel text to translate: your own files, a prepared TFDS set, or number words."""

import gzip
import hashlib
import logging
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from td.data import number_words
from td.data.tfds_folder import find, folder_of
from td.errors import UserError, check_choice

LOG = logging.getLogger(__name__)

SIDES = ("source", "target")
Lines = tuple[list[str], list[str]]  # sentences and their translations


class Corpus(NamedTuple):
    """Text of two languages."""

    identity: str  # changes with the training text
    test_identity: str  # changes with the test text
    read: Callable[[str], Lines]  # split, "train" or "test" -> lines


def text_files(settings: Mapping[str, Any]) -> Corpus:
    """Build a corpus of your own text files."""
    names = [f"{split}_{side}" for split in ("train", "test") for side in SIDES]
    files = {name: _existing(f"data.{name}", settings[name]) for name in names}
    digests = {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in files.items()}
    train, test = ("-".join(digests[f"{split}_{side}"] for side in SIDES) for split in ("train", "test"))

    def read(split: str) -> Lines:
        source, target = files[f"{split}_source"], files[f"{split}_target"]
        lines = _read(source), _read(target)
        if len(lines[0]) != len(lines[1]):
            raise UserError(f"{source} has {len(lines[0])} lines, {target} has {len(lines[1])}: give one per sentence")
        return _without_blanks(*lines, f"{source} and {target}")

    return Corpus(f"text-{train}", test, read)


def _existing(name: str, path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{name}={path!r} is not a file: name a text file, plain, .gz or .xz")
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


def _without_blanks(source: list[str], target: list[str], where: str) -> Lines:
    """Keep the pairs of which neither side is blank."""
    pairs = [(a, b) for a, b in zip(source, target, strict=True) if a.strip() and b.strip()]
    if not pairs:
        raise UserError(f"{where} have only blank lines")
    dropped = len(source) - len(pairs)
    if dropped:
        LOG.warning("%d of %d pairs of %s are blank on one side: dropped", dropped, len(source), where)
    return [a for a, _ in pairs], [b for _, b in pairs]


def tfds_text(settings: Mapping[str, Any]) -> Corpus:
    """Build a corpus of a prepared TFDS translation set."""
    name = settings["name"]
    builder = find(name, folder_of(settings["data_dir"]))
    languages = [settings[side] for side in SIDES]
    for language in languages:
        check_choice("language", language, builder.info.features)

    def read(split: str) -> Lines:
        rows = [[row[language].decode() for language in languages] for row in builder.as_data_source(split)]
        where = f"{' and '.join(languages)} of {split} in {builder.data_dir}"
        return _without_blanks([source for source, _ in rows], [target for _, target in rows], where)

    return Corpus("-".join([name.replace("/", "-"), str(builder.version), *languages]), "test", read)


CORPORA: dict[str, Callable[[Mapping[str, Any]], Corpus]] = {
    "numbers": lambda _: Corpus("numbers", "test", number_words.read),
    "text": text_files,
    "wmt14_translate/de-en": tfds_text,
}
