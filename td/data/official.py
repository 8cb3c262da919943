"""CIFAR and MNIST as their authors give them away, downloaded and checked."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pooch

from td.data import archive_formats as formats
from td.data.archive_formats import Form
from td.errors import UserError
from td.io.progress import progress


class Official(NamedTuple):
    """A data set as its authors give it away."""

    url: str  # of the folder that has the downloads
    md5: Mapping[str, str]  # the downloads and their checksums
    forms: tuple[Form, ...]  # what is inside, in any of these forms
    counts: Mapping[str, int]  # split -> images


BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
FINE_AND_COARSE = {"coarse_label": "coarse_label_names", "label": "fine_label_names"}

CIFAR_10 = (
    Form(
        {"train": tuple(f"{batch}.bin" for batch in BATCHES), "test": ("test_batch.bin",)},
        partial(formats.cifar_binary, ["label"]),
        {"label": "batches.meta.txt"},
        formats.text_names,
    ),
    Form(
        {"train": BATCHES, "test": ("test_batch",)},
        partial(formats.cifar_pickle, {"label": "labels"}),
        {"label": "batches.meta"},
        partial(formats.pickled_names, {"label": "label_names"}),
    ),
)
CIFAR_100 = (
    Form(
        {"train": ("train.bin",), "test": ("test.bin",)},
        partial(formats.cifar_binary, list(FINE_AND_COARSE)),
        {feature: f"{key}.txt" for feature, key in FINE_AND_COARSE.items()},
        formats.text_names,
    ),
    Form(
        {"train": ("train",), "test": ("test",)},
        partial(formats.cifar_pickle, {"coarse_label": "coarse_labels", "label": "fine_labels"}),
        dict.fromkeys(FINE_AND_COARSE, "meta"),
        partial(formats.pickled_names, FINE_AND_COARSE),
    ),
)
MNIST = (
    Form(
        {
            split: (f"{file}-images-idx3-ubyte", f"{file}-labels-idx1-ubyte")
            for split, file in (("train", "train"), ("test", "t10k"))
        },
        formats.mnist_idx,
        {},
        formats.text_names,
    ),
)

OFFICIAL = {
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        CIFAR_10,
        {"train": 50_000, "test": 10_000},
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        CIFAR_100,
        {"train": 50_000, "test": 10_000},
    ),
    "mnist": Official(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        MNIST,
        {"train": 60_000, "test": 10_000},
    ),
    "fashion_mnist": Official(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        MNIST,
        {"train": 60_000, "test": 10_000},
    ),
}


def download(official: Official, folder: Path, mirror: str = "") -> Path:
    """Download what is not there yet, check it, and say where it lies.

    A file gets its name only after its checksum was right, so one that was cut off is downloaded anew.
    """
    import requests  # takes a tenth of a second; pooch too imports it only when it downloads

    for file, md5 in official.md5.items():
        url = f"{(mirror or official.url).rstrip('/')}/{file}"
        # pooch sets the total, and takes a bar without any for none.
        bar = progress(desc=file, total=1, unit="B", unit_scale=True, delay=1)
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16)
        try:
            pooch.retrieve(url, f"md5:{md5}", file, folder, downloader=downloader)
        except requests.exceptions.RequestException as error:
            raise UserError(f"{url} cannot be downloaded ({error}): {_otherwise(file)}") from None
        except ValueError:  # from pooch, of the checksum
            raise UserError(f"{url} is not the official file, whose md5 is {md5}: {_otherwise(file)}") from None
        finally:
            bar.close()
    return folder / file if len(official.md5) == 1 else folder


def _otherwise(file: str) -> str:
    return (
        f"give the same command again, or --mirror=URL of another folder that has {file}, or "
        "--from=FOLDER_OR_ARCHIVE if you have the data already"
    )
