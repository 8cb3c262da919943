"""CIFAR and MNIST archives of a few images, in every form in which they are offered."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np

COUNTS = {"train": 15, "test": 4}
TEN = [f"ten{i}" for i in range(10)]
FINE, COARSE = [f"fine{i:02}" for i in range(100)], [f"coarse{i:02}" for i in range(20)]


def images(split, *shape):
    return np.random.default_rng(COUNTS[split]).integers(0, 256, (COUNTS[split], *shape), np.uint8)


def labels(split, classes):
    return np.random.default_rng(COUNTS[split] + classes).integers(0, classes, COUNTS[split])


def planes(pictures):
    return pictures.transpose(0, 3, 1, 2).reshape(len(pictures), -1)


def binary(split, *of_labels):
    columns = np.stack(of_labels, 1).astype(np.uint8)
    return np.concatenate([columns, planes(images(split, 32, 32, 3))], 1)


def cifar10_binary():
    train, test = (binary(split, labels(split, 10)) for split in COUNTS)
    batches = {f"data_batch_{i + 1}.bin": train[3 * i : 3 * i + 3].tobytes() for i in range(5)}
    return batches | {"test_batch.bin": test.tobytes(), "batches.meta.txt": "\n".join([*TEN, "", ""]).encode()}


def cifar100_binary():
    files = {f"{split}.bin": binary(split, labels(split, 20), labels(split, 100)).tobytes() for split in COUNTS}
    names = {"fine_label_names.txt": FINE, "coarse_label_names.txt": COARSE}
    return files | {file: "\n".join([*listed, ""]).encode() for file, listed in names.items()}


class Python2(pickle._Pickler):
    """Writes text and bytes as the strings of Python 2, which the official pickles were made with."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, text):
        raw = text if isinstance(text, bytes) else text.encode()
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    def save_flag(self, flag):
        self.save(int(flag))  # as NumPy of that time pickled those of a dtype

    dispatch[bytes] = dispatch[str] = save_string
    dispatch[bool] = save_flag


def python2(content):
    file = io.BytesIO()
    Python2(file, protocol=2).dump(content)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar10_pickle(dump):
    train, test = ({"data": planes(images(s, 32, 32, 3)), "labels": labels(s, 10).tolist()} for s in COUNTS)
    parts = {f"data_batch_{i + 1}": {k: v[3 * i : 3 * i + 3] for k, v in train.items()} for i in range(5)}
    contents = parts | {"test_batch": test, "batches.meta": {"label_names": TEN, "num_vis": 3072}}
    return {name: dump(content) for name, content in contents.items()}


def cifar100_pickle(dump):
    def part(split):
        fine, coarse = labels(split, 100).tolist(), labels(split, 20).tolist()
        return {"data": planes(images(split, 32, 32, 3)), "fine_labels": fine, "coarse_labels": coarse}

    contents = {split: part(split) for split in COUNTS}
    contents["meta"] = {"fine_label_names": FINE, "coarse_label_names": COARSE}
    return {name: dump(content) for name, content in contents.items()}


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist(dot="-", ending=""):
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files[f"{prefix}-images{dot}idx3-ubyte{ending}"] = idx(images(split, 28, 28))
        files[f"{prefix}-labels{dot}idx1-ubyte{ending}"] = idx(labels(split, 10).astype(np.uint8))
    return {name: gzip.compress(content) if ending else content for name, content in files.items()}


def write_folder(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def cut(content):
    return content[: len(content) // 2 - 1]


def one_pixel_changed(content):
    stored = gzip.compress(gzip.decompress(content), compresslevel=0)
    place = stored.index(images("test", 32, 32, 3)[0].transpose(2, 0, 1).tobytes()[:50])
    return stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :]
