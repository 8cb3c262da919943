"""Data sets written as TFDS writes them: CIFAR and MNIST without TensorFlow, others by TFDS itself."""

import importlib.util
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from td.data.archive import Content, read
from td.data.official import OFFICIAL, download
from td.data.tfds_folder import find, folder_of
from td.errors import UserError, check_choice

BY_TFDS = ("imagenet2012", "wmt14_translate/de-en")
"""Sets that TFDS downloads and prepares, which needs TensorFlow."""

NAMES = (*OFFICIAL, *BY_TFDS)
"""What can be prepared."""


def prepare(name: str, data_dir: str = "", source: str = "", mirror: str = "") -> str:
    """Prepare a data set as array_record: from a folder or an archive that is there, else downloaded."""
    check_choice("name", name, NAMES)
    folder = folder_of(data_dir)
    try:
        unread = f", and was before: {source} is not looked at" if source else ""
        return f"{name} is ready in {find(name, folder).data_dir}{unread}"
    except UserError:
        pass
    if name in BY_TFDS:
        if source or mirror:
            raise UserError(f"--from and --mirror are for {', '.join(OFFICIAL)}: TFDS itself prepares {name}")
        _with_tensorflow(name, folder)
    else:
        official = OFFICIAL[name]
        path = Path(source).expanduser() if source else download(official, folder / "downloads" / name, mirror)
        write(name, read(official, path), folder)
    return f"{name} is ready in {find(name, folder).data_dir}"


def _with_tensorflow(name: str, folder: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(f"preparing {name} needs TensorFlow (reading it does not): pip install '.[prepare]'")
    tfds.builder(name, data_dir=folder, file_format="array_record").download_and_prepare()


def write(name: str, content: Content, folder: Path) -> None:
    """Write images as TFDS does: the same features, the same keys, and so the same order of records.

    TFDS sorts records by the MD5 of the split's name and the record's key, its number in the archive. All goes to a
    folder of another name that is renamed at the end.

    Source: tensorflow_datasets, image_classification/cifar.py and mnist.py.
    """
    builder = _builder(name, content, folder)
    if builder.data_path.exists():
        raise UserError(f"{builder.data_dir} is there, but not as array_record: delete it, or give another --data_dir")
    with redirect_stdout(StringIO()):  # where TFDS tells of a download, which is none here
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def _builder(name: str, content: Content, folder: Path) -> tfds.core.DatasetBuilder:
    official: Any = tfds.builder_cls(name)

    class Prepared(official, skip_registration=True):  # type: ignore[call-arg]
        def _split_generators(self, _: Any) -> dict[str, Any]:
            for feature, names in content.names.items():
                self.info.features[feature].names = names
            return {split: self._generate_examples(split) for split in content.splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            images, labels = content.splits[split]
            for key, image in enumerate(images):
                example = {"image": _png(image), **{feature: int(values[key]) for feature, values in labels.items()}}
                yield key, example | ({"id": f"{split}_{key:05d}"} if "id" in self.info.features else {})

    Prepared.name = name
    return Prepared(data_dir=folder, file_format="array_record")


def _png(image: np.ndarray) -> bytes:
    encoded = BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(encoded, format="PNG")
    return encoded.getvalue()
