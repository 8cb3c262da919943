"""CIFAR and MNIST, downloaded and written as prepared TFDS data sets, without TensorFlow."""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pooch
import tensorflow_datasets as tfds
from PIL import Image

from td.data.tfds_folder import find, folder_of, prepared
from td.errors import UserError, check_choice
from td.io.progress import progress


class Official(NamedTuple):
    """A data set as its authors publish it."""

    url: str  # folder that has the archives
    md5: Mapping[str, str]  # archive -> checksum
    files: Mapping[str, str]  # split -> pattern of its unpacked files
    class_names: Mapping[str, str] = {}  # of CIFAR: label feature -> file that lists its classes, in order of bytes


MNIST_FILES = {"train": "train-*-ubyte", "test": "t10k-*-ubyte"}

OFFICIAL = {
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        {"train": "data_batch_*.bin", "test": "test_batch.bin"},
        {"label": "batches.meta.txt"},
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        {"train": "train.bin", "test": "test.bin"},
        {"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
    ),
    "mnist": Official(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        MNIST_FILES,
    ),
    "fashion_mnist": Official(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        MNIST_FILES,
    ),
}

NAMES = (*OFFICIAL, "imagenet2012", "wmt14_translate/de-en")  # the last are prepared by TFDS, with TensorFlow


def prepare(name: str, data_dir: str = "") -> Path:
    """Prepare a data set in array_record format, unless it is there already; returns its folder."""
    check_choice("name", name, NAMES)
    folder = folder_of(data_dir)
    if name in OFFICIAL and name not in prepared(folder):
        _download(name, folder)
    elif name not in prepared(folder):
        if importlib.util.find_spec("tensorflow") is None:
            raise UserError(f"preparing {name} needs TensorFlow (reading it does not): pip install '.[prepare]'")
        tfds.builder(name, data_dir=folder, file_format="array_record").download_and_prepare()
    return Path(find(name, folder).data_dir)


def _download(name: str, folder: Path) -> None:
    official = OFFICIAL[name]
    with TemporaryDirectory() as unpacked:
        for file, md5 in official.md5.items():
            _retrieve(f"{official.url}/{file}", md5, folder / "downloads" / name, Path(unpacked))
        builder = _builder(name, Path(unpacked), folder)
        with redirect_stdout(StringIO()):  # TFDS reports a download of unknown size
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def _retrieve(url: str, md5: str, downloads: Path, unpacked: Path) -> None:
    """Download a file unless it is there with the right checksum, and unpack it."""
    file = url.rpartition("/")[2]
    is_tar = file.endswith(".tar.gz")
    unpack = pooch.Untar(extract_dir=unpacked) if is_tar else pooch.Decompress(name=unpacked / Path(file).stem)
    with progress(desc=file, total=1, unit="B", unit_scale=True, delay=1) as bar:  # pooch sets the total
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16)
        try:
            pooch.retrieve(url, f"md5:{md5}", file, downloads, processor=unpack, downloader=downloader)
        except (OSError, ValueError) as error:  # of the network or disk; of the checksum
            raise UserError(f"cannot download {url} ({error}): rerun, or put {file} into {downloads}") from None


def _examples(official: Official, unpacked: Path, split: str) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Read the images of a split, uint8 `[n, height, width, channels]`, and their labels by feature."""
    contents = [np.fromfile(path, np.uint8) for path in sorted(unpacked.rglob(official.files[split]))]
    if not official.class_names:  # idx files: a header, then the images or labels
        images, labels = contents
        return images[16:].reshape(-1, 28, 28, 1), {"label": labels[8:]}
    columns = len(official.class_names)
    records = np.concatenate(contents).reshape(-1, columns + 3 * 32 * 32)
    images = records[:, columns:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, dict(zip(official.class_names, records.T, strict=False))


def _builder(name: str, unpacked: Path, folder: Path) -> tfds.core.DatasetBuilder:
    """Give TFDS's own data set the unpacked files: its features and its order of records stay."""
    base: Any = tfds.builder_cls(name)
    official = OFFICIAL[name]

    class Prepared(base, skip_registration=True):  # type: ignore[call-arg]
        def _split_generators(self, _: Any) -> dict[str, Any]:
            for feature, file in official.class_names.items():
                self.info.features[feature].names = next(unpacked.rglob(file)).read_text().split()
            return {split: self._generate_examples(split) for split in official.files}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            images, labels = _examples(official, unpacked, split)
            for key, image in enumerate(images):
                png = BytesIO()
                Image.fromarray(image.squeeze()).save(png, format="PNG")
                example = {"image": png.getvalue(), **{feature: int(values[key]) for feature, values in labels.items()}}
                yield key, example | ({"id": f"{split}_{key:05d}"} if "id" in self.info.features else {})

    Prepared.name = name
    return Prepared(data_dir=folder, file_format="array_record")
