"""What a folder or a tar archive of a data set holds, read and checked; nothing is unpacked to disk."""

import gzip
import lzma
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from td.data.archive_formats import Form, Images
from td.data.official import Official
from td.errors import UserError

CLASSES = 10
"""Of a set whose archive does not name them."""

Member = tuple[PurePath, Callable[[], bytes]]
"""A file of a folder or archive, and how to read it."""


class Content(NamedTuple):
    """What is in an archive."""

    splits: Mapping[str, Images]
    names: Mapping[str, list[str]]  # feature -> its classes


def read(official: Official, source: Path) -> Content:
    """Read a data set in any of its forms, every split with the number of images that it must have."""
    if not source.exists():
        raise UserError(f"--from: there is no folder or archive {source}")
    try:
        with _members(source) as members:
            form, chosen = _choose(official.forms, source, members)
            contents = {file: _read(*member) for file, member in chosen.items()}
        return _parse(form, contents, official.counts)
    except UserError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError, LookupError) as error:
        what = "damaged" if source.is_dir() else "not a tar archive, or damaged"
        reason = str(error).split("\n")[0].rstrip(":")
        raise UserError(f"{source} is {what} ({reason}): get it again") from None


@contextmanager
def _members(source: Path) -> Iterator[list[Member]]:
    if source.is_dir():
        yield [(path, path.read_bytes) for path in sorted(source.rglob("*")) if path.is_file()]
        return
    with tarfile.open(source) as archive:

        def content(member: tarfile.TarInfo) -> bytes:
            file = archive.extractfile(member)
            return file.read() if file else b""

        members: list[Member] = [
            (PurePath(member.name), partial(content, member)) for member in archive if member.isfile()
        ]
        # The checksum of all is at the end of the file, behind what a reader of tar archives reads.
        while archive.fileobj and archive.fileobj.read(2**20):
            pass
        yield members


def _plain(path: PurePath) -> str:
    # MNIST's files are found as train-images-idx3-ubyte and as train-images.idx3-ubyte.
    return path.name.removesuffix(".gz").replace(".idx", "-idx")


def _read(path: PurePath, read_bytes: Callable[[], bytes]) -> bytes:
    content = read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _choose(forms: tuple[Form, ...], source: Path, members: list[Member]) -> tuple[Form, dict[str, Member]]:
    """The first form of which a folder has all files, and these in the order in which they lie there."""
    folders: dict[PurePath, dict[str, Member]] = defaultdict(dict)
    for path, read_bytes in members:
        folders[path.parent].setdefault(_plain(path), (path, read_bytes))
    for form in forms:
        whole = [folder for folder, files in folders.items() if form.files() <= set(files)]
        if len(whole) > 1:
            raise UserError(f"{', '.join(map(str, whole))} all have the files of this set: give one of them")
        if whole:
            return form, {file: member for file, member in folders[whole[0]].items() if file in form.files()}
    wanted = " or of ".join(", ".join(sorted(form.files())) for form in forms)
    raise UserError(f"{source} does not have all of {wanted}: give the folder or archive that has, or get it again")


def _parse(form: Form, contents: Mapping[str, bytes], counts: Mapping[str, int]) -> Content:
    splits = {split: form.read([contents[file] for file in files]) for split, files in form.splits.items()}
    names = {feature: form.read_names(feature, contents[file]) for feature, file in form.names.items()}
    for split, (images, labels) in splits.items():
        for what, entries in {"image": images, **labels}.items():
            if len(entries) != counts[split]:
                raise ValueError(f"{split} has {len(entries)} {what}s, not {counts[split]}")
        for feature, values in labels.items():
            classes = len(names[feature]) if names else CLASSES
            if values.ndim != 1 or values.dtype.kind not in "iu" or not 0 <= values.min() <= values.max() < classes:
                raise ValueError(f"{split} has a {feature} that is none of {classes} classes")
    return Content(splits, names)
