"""Preparing CIFAR and MNIST: every form of their archives, TFDS's order of records, downloads, and what is refused."""

import hashlib
import http.server
import pickle
import threading
from functools import partial

import numpy as np
import pytest
import tensorflow_datasets as tfds
from official_archives import (
    COARSE,
    COUNTS,
    FINE,
    TEN,
    cifar10_binary,
    cifar10_pickle,
    cifar100_binary,
    cifar100_pickle,
    cut,
    idx,
    images,
    labels,
    mnist,
    one_pixel_changed,
    planes,
    python2,
    write_archive,
    write_folder,
)

import td
from td.data import cifar, prepare
from td.data.official import OFFICIAL
from td.data.prepare import prepare as run


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Archives of 15 and 4 images count as whole."""
    for name, official in OFFICIAL.items():
        monkeypatch.setitem(OFFICIAL, name, official._replace(counts=COUNTS))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def tfds_order(split, count):
    """TFDS's order by its rule: records are sorted by the MD5 of the split's name and the key."""
    return sorted(range(count), key=lambda key: hashlib.md5(f"{split}{key}".encode()).hexdigest())


def test_the_order_is_the_one_that_tfds_has_published():
    # The first record of cifar10's training split is train_16399 in every copy that TFDS has prepared, and MNIST's
    # first labels are 4, 1, 0, 7, 8, which the images of these numbers in the official files show.
    assert tfds_order("train", 50_000)[:2] == [16_399, 1_680] and tfds_order("test", 10_000)[0] == 9_933


def records(folder, name, split):
    version = next((folder / name).iterdir())
    return tfds.builder_from_directory(version), tfds.builder_from_directory(version).as_data_source(split)


def test_cifar10_is_written_as_tfds_does(tmp_path):
    archive = write_archive(tmp_path / "c.tar.gz", "cifar-10-batches-bin", cifar10_binary())
    assert run("cifar10", str(tmp_path), str(archive)) == f"cifar10 is ready in {tmp_path / 'cifar10' / '3.0.2'}"
    for split, count in COUNTS.items():
        builder, source = records(tmp_path, "cifar10", split)
        order = tfds_order(split, count)
        assert [record["id"].decode() for record in source] == [f"{split}_{key:05d}" for key in order]
        np.testing.assert_array_equal([record["image"] for record in source], images(split, 32, 32, 3)[order])
        assert [record["label"] for record in source] == labels(split, 10)[order].tolist()
    assert builder.info.features["label"].names == TEN and str(builder.version) == "3.0.2"
    dataset = cifar.load("cifar10", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert (dataset.train.size, dataset.evaluation.size, dataset.num_classes) == (15, 4, 10)


@pytest.mark.parametrize(
    ("name", "files", "classes", "shape"),
    [
        ("cifar10", cifar10_binary, {"label": 10}, (32, 32, 3)),
        ("cifar10", partial(cifar10_pickle, python2), {"label": 10}, (32, 32, 3)),
        ("cifar10", partial(cifar10_pickle, partial(pickle.dumps, protocol=2)), {"label": 10}, (32, 32, 3)),
        ("cifar100", cifar100_binary, {"label": 100, "coarse_label": 20}, (32, 32, 3)),
        ("cifar100", partial(cifar100_pickle, python2), {"label": 100, "coarse_label": 20}, (32, 32, 3)),
        ("mnist", mnist, {"label": 10}, (28, 28, 1)),
        ("mnist", partial(mnist, ".", ".gz"), {"label": 10}, (28, 28, 1)),
        ("fashion_mnist", partial(mnist, "-", ".gz"), {"label": 10}, (28, 28, 1)),
    ],
)
def test_every_form_gives_the_same_images(name, files, classes, shape, tmp_path):
    own = write_folder(tmp_path / "own" / "inner", {**files(), "README": b"of somebody"}).parent
    run(name, str(tmp_path), str(own))
    for split, count in COUNTS.items():
        builder, source = records(tmp_path, name, split)
        order = tfds_order(split, count)
        np.testing.assert_array_equal([record["image"] for record in source], images(split, *shape)[order])
        for feature, number in classes.items():
            assert [record[feature] for record in source] == labels(split, number)[order].tolist()
    if name == "cifar100":
        assert builder.info.features["label"].names == FINE and builder.info.features["coarse_label"].names == COARSE
    if name == "fashion_mnist":
        assert builder.info.features["label"].names[9] == "Ankle boot"


@pytest.fixture
def server():
    """A server on this machine: path -> (content, the length that it announces)."""
    served, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path not in served:
                self.send_error(404)
                return
            content, length = served[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/data", served, asked
        running.shutdown()
        thread.join()


def offer(monkeypatch, served, name, files):
    served |= {f"/data/{file}": (content, len(content)) for file, content in files.items()}
    md5 = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
    monkeypatch.setitem(OFFICIAL, name, OFFICIAL[name]._replace(md5=md5))


def archived(tmp_path):
    return write_archive(tmp_path / "made.tar.gz", "cifar-10-batches-bin", cifar10_binary()).read_bytes()


def test_downloads_are_checked_and_used_again(server, tmp_path, monkeypatch):
    url, served, asked = server
    offer(monkeypatch, served, "mnist", mnist(ending=".gz"))
    folder = tmp_path / "data"
    run("mnist", str(folder), mirror=url + "/")
    assert len(asked) == 4 and records(folder, "mnist", "train")[1][0]["label"] in range(10)
    run("mnist", str(folder), mirror=url)
    (folder / "mnist").rename(tmp_path / "elsewhere")
    run("mnist", str(folder), mirror=url)  # what was downloaded is still there
    assert len(asked) == 4
    (folder / "mnist").rename(tmp_path / "elsewhere2")
    (folder / "downloads" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    run("mnist", str(folder), mirror=url)
    assert asked[4:] == ["/data/train-images-idx3-ubyte.gz"]


def test_the_official_address_is_the_default(tmp_path, monkeypatch, server):
    url, served, asked = server
    offer(monkeypatch, served, "cifar10", {"cifar-10-binary.tar.gz": archived(tmp_path)})
    assert OFFICIAL["cifar10"].url == "https://www.cs.toronto.edu/~kriz"
    monkeypatch.setitem(OFFICIAL, "cifar10", OFFICIAL["cifar10"]._replace(url=url))
    run("cifar10", str(tmp_path))
    assert asked == ["/data/cifar-10-binary.tar.gz"] and len(records(tmp_path, "cifar10", "test")[1]) == 4


def test_a_download_that_fails_leaves_nothing_and_the_same_command_begins_anew(server, tmp_path, monkeypatch):
    url, served, _ = server
    whole = archived(tmp_path)
    offer(monkeypatch, served, "cifar10", {"cifar-10-binary.tar.gz": whole})
    path, folder = "/data/cifar-10-binary.tar.gz", tmp_path / "data"

    def left():
        return [file for file in folder.rglob("*") if file.is_file()]

    served[path] = whole[:500], len(whole)
    with pytest.raises(td.UserError, match=r"cannot be downloaded .*: give the same command again, or --mirror=URL"):
        run("cifar10", str(folder), mirror=url)
    assert left() == []
    served[path] = whole + b"x", len(whole) + 1
    with pytest.raises(td.UserError, match=r"is not the official file, whose md5 is [0-9a-f]{32}: .* --from="):
        run("cifar10", str(folder), mirror=url)
    assert left() == []
    del served[path]
    with pytest.raises(td.UserError, match=r"cannot be downloaded \(404"):
        run("cifar10", str(folder), mirror=url)
    with pytest.raises(td.UserError, match="cannot be downloaded"):
        run("cifar10", str(folder), mirror="ftp:/nowhere")
    assert left() == []
    served[path] = whole, len(whole)
    run("cifar10", str(folder), mirror=url)
    assert len(records(folder, "cifar10", "train")[1]) == 15


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    own, folder = write_folder(tmp_path / "own", mnist()), tmp_path / "data"

    def stopped(image):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare, "_png", stopped)
        run("mnist", str(folder), str(own))
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    run("mnist", str(folder), str(own))
    assert len(records(folder, "mnist", "train")[1]) == 15


@pytest.mark.parametrize("damage", [cut, one_pixel_changed, lambda content: b"", lambda content: b"no archive at all"])
def test_a_damaged_archive_is_told(damage, tmp_path):
    archive = tmp_path / "damaged.tar.gz"
    archive.write_bytes(damage(archived(tmp_path)))
    with pytest.raises(td.UserError, match=r"damaged.tar.gz is not a tar archive, or damaged \(.*\): get it again"):
        run("cifar10", str(tmp_path / "data"), str(archive))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "files", "changes", "told"),
    [
        ("cifar10", cifar10_binary, {"test_batch.bin": cut}, "no whole number of records of 3073"),
        ("cifar10", cifar10_binary, {"test_batch.bin": lambda c: c[3073:]}, "test has 3 images, not 4"),
        ("cifar10", cifar10_binary, {"batches.meta.txt": lambda c: b"cat\n"}, "a label that is none of 1 classes"),
        ("cifar10", partial(cifar10_pickle, python2), {"data_batch_2": cut}, "no pickle of a dict"),
        ("cifar10", partial(cifar10_pickle, python2), {"data_batch_2": lambda c: python2([1])}, "no pickle of a dict"),
        ("cifar10", partial(cifar10_pickle, python2), {"test_batch": lambda c: python2({"a": 1})}, "data"),
        (
            "cifar10",
            partial(cifar10_pickle, python2),
            {"test_batch": lambda c: python2({"data": np.zeros((4, 5)), "labels": [0] * 4})},
            r"data is float64 \(4, 5\)",
        ),
        (
            "cifar10",
            partial(cifar10_pickle, python2),
            {"test_batch": lambda c: python2({"data": planes(images("test", 32, 32, 3)), "labels": ["a"] * 4})},
            "test has a label that is none of 10 classes",
        ),
        ("mnist", mnist, {"train-images-idx3-ubyte": lambda c: idx(images("train", 28, 27))}, "28 x 27, not 28 x 28"),
        ("mnist", mnist, {"train-images-idx3-ubyte": cut}, "are not the 11760 that it announces"),
        ("mnist", mnist, {"t10k-labels-idx1-ubyte": lambda c: b"no idx"}, "does not begin as an idx file"),
        ("mnist", mnist, {"t10k-labels-idx1-ubyte": lambda c: idx(np.full(4, 10, np.uint8))}, "none of 10 classes"),
        ("mnist", partial(mnist, "-", ".gz"), {"train-labels-idx1-ubyte.gz": cut}, "ended before"),
    ],
)
def test_a_damaged_file_is_told(name, files, changes, told, tmp_path):
    contents = files()
    damaged = {file: changes.get(file, lambda content: content)(content) for file, content in contents.items()}
    with pytest.raises(td.UserError, match=rf"own is damaged \(.*{told}.*\): get it again"):
        run(name, str(tmp_path / "data"), str(write_folder(tmp_path / "own", damaged)))
    assert not (tmp_path / "data").exists()


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    files = cifar10_pickle(python2) | {"data_batch_3": pickle.dumps(Runs(tmp_path / "ran"), protocol=2)}
    with pytest.raises(td.UserError, match=r"asks for \S+\.open, .* was not run; take the binary version"):
        run("cifar10", str(tmp_path / "data"), str(write_folder(tmp_path / "own", files)))
    assert not (tmp_path / "ran").exists() and not (tmp_path / "data").exists()


def test_what_is_missing_or_twice_there_is_told(tmp_path):
    with pytest.raises(td.UserError, match="--from: there is no folder or archive .*nowhere"):
        run("mnist", str(tmp_path), str(tmp_path / "nowhere"))
    files = mnist()
    own = write_folder(tmp_path / "own" / "MNIST", dict(list(files.items())[:3])).parent
    with pytest.raises(td.UserError, match="own does not have all of t10k-images-idx3-ubyte, t10k-.*: give the folder"):
        run("mnist", str(tmp_path), str(own))
    for folder in ("MNIST", "FashionMNIST"):
        write_folder(own / folder, files)
    with pytest.raises(td.UserError, match="FashionMNIST, .*MNIST all have the files of this set: give one of them"):
        run("mnist", str(tmp_path), str(own))


def test_what_tfds_prepares_itself_takes_no_folder(tmp_path):
    with pytest.raises(
        td.UserError, match="--from and --mirror are for cifar10, .*: TFDS itself prepares imagenet2012"
    ):
        run("imagenet2012", str(tmp_path), str(tmp_path))
    with pytest.raises(td.UserError, match="did you mean 'cifar10"):
        run("cifar11", str(tmp_path))


def test_a_copy_in_another_format_is_not_overwritten(tmp_path):
    own, there = write_folder(tmp_path / "own", mnist()), tmp_path / "mnist" / "3.0.1"
    there.mkdir(parents=True)
    with pytest.raises(td.UserError, match="3.0.1 is there, but not as array_record: delete it, or give another"):
        run("mnist", str(tmp_path), str(own))
