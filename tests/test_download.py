"""CIFAR and MNIST: download, checksums, and the prepared set in TFDS's order of records."""

import functools
import gzip
import hashlib
import http.server
import io
import json
import struct
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import td
from td.data import download, in_memory
from td.data.download import OFFICIAL, prepare

COUNTS = {"train": 15, "test": 4}
TEN = [f"ten{i}" for i in range(10)]
FINE, COARSE = [f"fine{i:02}" for i in range(100)], [f"coarse{i:02}" for i in range(20)]
SHAPES = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1)}


def images(split, shape):
    return np.random.default_rng(COUNTS[split]).integers(0, 256, (COUNTS[split], *shape), np.uint8)


def labels(split, classes):
    return np.random.default_rng(COUNTS[split] + classes).integers(0, classes, COUNTS[split], np.uint8)


def records(split, *of_labels):
    """CIFAR's binary records: labels, then the red, green and blue plane."""
    planes = images(split, (32, 32, 3)).transpose(0, 3, 1, 2).reshape(COUNTS[split], -1)
    return np.concatenate([np.stack(of_labels, 1), planes], 1)


def tar(folder, files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, inside in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(inside)
            archive.addfile(member, io.BytesIO(inside))
    return content.getvalue()


def cifar10():
    train, test = (records(split, labels(split, 10)) for split in COUNTS)
    batches = {f"data_batch_{i + 1}.bin": train[3 * i : 3 * i + 3].tobytes() for i in range(5)}
    files = batches | {"test_batch.bin": test.tobytes(), "batches.meta.txt": "\n".join([*TEN, "", ""]).encode()}
    return {"cifar-10-binary.tar.gz": tar("cifar-10-batches-bin", files)}


def cifar100():
    files = {f"{split}.bin": records(split, labels(split, 20), labels(split, 100)).tobytes() for split in COUNTS}
    names = {"fine_label_names.txt": FINE, "coarse_label_names.txt": COARSE}
    files |= {file: "\n".join([*listed, ""]).encode() for file, listed in names.items()}
    return {"cifar-100-binary.tar.gz": tar("cifar-100-binary", files)}


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


def mnist():
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(images(split, (28, 28)))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx(labels(split, 10))
    return files


FILES = {"cifar10": cifar10, "cifar100": cifar100, "mnist": mnist, "fashion_mnist": mnist}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of small archives under the official names: its folder, and the files that were asked for."""
    asked, folder = [], tmp_path / "served"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.rpartition("/")[2])
            super().do_GET()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as running:
        for name, files in FILES.items():
            contents = files()
            (folder / name).mkdir(parents=True)
            for file, content in contents.items():
                (folder / name / file).write_bytes(content)
            md5 = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}
            url = f"http://127.0.0.1:{running.server_port}/{name}"
            monkeypatch.setitem(OFFICIAL, name, OFFICIAL[name]._replace(url=url, md5=md5))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, asked
        running.shutdown()
        thread.join()


def tfds_order(split, count):
    """TFDS's order by its rule: records are sorted by the MD5 of the split's name and the key."""
    return sorted(range(count), key=lambda key: hashlib.md5(f"{split}{key}".encode()).hexdigest())


def test_the_order_is_the_one_that_tfds_has_published():
    # The first record of cifar10's training split is train_16399 in every copy that TFDS has prepared, and MNIST's
    # first labels are 4, 1, 0, 7, 8, which the images of these numbers in the official files show.
    assert tfds_order("train", 50_000)[:2] == [16_399, 1_680] and tfds_order("test", 10_000)[0] == 9_933


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_set_is_written_as_tfds_does(name, server, tmp_path):
    builder = tfds.builder_from_directory(prepare(name, str(tmp_path / "data")))
    classes = {"label": 100, "coarse_label": 20} if name == "cifar100" else {"label": 10}
    for split, count in COUNTS.items():
        source, order = builder.as_data_source(split), tfds_order(split, count)
        np.testing.assert_array_equal([record["image"] for record in source], images(split, SHAPES[name])[order])
        for feature, number in classes.items():
            assert [record[feature] for record in source] == labels(split, number)[order].tolist()
        if "cifar" in name:
            assert [record["id"].decode() for record in source] == [f"{split}_{key:05d}" for key in order]
    names = {feature: builder.info.features[feature].names for feature in classes}
    if name == "fashion_mnist":
        assert names["label"][9] == "Ankle boot"
    elif name != "mnist":
        assert names == ({"label": TEN} if name == "cifar10" else {"label": FINE, "coarse_label": COARSE})
    dataset = in_memory.load_tfds(name, data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    assert (dataset.train.size, dataset.evaluation.size, dataset.num_classes) == (15, 4, classes["label"])


def test_downloads_are_checked_and_used_again(server, tmp_path):
    _, asked = server
    folder = tmp_path / "data"
    prepared = prepare("mnist", str(folder))
    assert asked == list(mnist()) and prepare("mnist", str(folder)) == prepared
    prepared.parent.rename(tmp_path / "elsewhere")
    prepare("mnist", str(folder))
    assert len(asked) == 4
    prepared.parent.rename(tmp_path / "elsewhere2")
    (folder / "downloads" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    prepare("mnist", str(folder))
    assert asked[4:] == ["train-images-idx3-ubyte.gz"]


def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(server, tmp_path):
    served, _ = server
    archive, folder = served / "cifar10" / "cifar-10-binary.tar.gz", tmp_path / "data"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:500])
    with pytest.raises(td.UserError, match=r"does not match the known hash.*rerun, or put cifar-10-binary.tar.gz"):
        prepare("cifar10", str(folder))
    archive.unlink()
    with pytest.raises(td.UserError, match="404"):
        prepare("cifar10", str(folder))
    assert [file for file in folder.rglob("*") if file.is_file()] == []
    archive.write_bytes(whole)
    prepare("cifar10", str(folder))


def test_an_interrupted_preparation_leaves_no_data_set(server, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "data"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", stopped)
        prepare("mnist", str(folder))
    assert download.prepared(folder) == []
    prepare("mnist", str(folder))
    assert download.prepared(folder) == ["mnist"]


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(td.UserError, match="did you mean 'cifar10"):
        prepare("cifar11", str(tmp_path))


def test_a_copy_in_another_format_is_not_overwritten(server, tmp_path):
    info = prepare("mnist", str(tmp_path)) / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(td.UserError, match="3.0.1 is not in array_record format: delete it and run `td-prepare-data"):
        prepare("mnist", str(tmp_path))
