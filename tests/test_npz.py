"""Your own arrays in a file: loading, and errors."""

import numpy as np
import pytest

import td
from td import data
from td.data import load_npz


def arrays():
    pictures = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 3), np.uint8)
    numbers = np.arange(9) % 3
    return {
        "train_images": pictures[:6],
        "train_labels": numbers[:6],
        "test_images": pictures[6:],
        "test_labels": numbers[6:].astype(np.uint8),
    }


def written(tmp_path, **changes):
    np.savez(tmp_path / "own.npz", **{name: array for name, array in (arrays() | changes).items() if array is not None})
    return str(tmp_path / "own.npz")


def test_arrays_become_splits(tmp_path):
    dataset = data.load({"name": "npz", "path": written(tmp_path), "pad": 1, "flip": True, "image_size": 224})
    assert dataset.num_classes == 3
    for split, name in ((dataset.train, "train"), (dataset.evaluation, "test")):
        np.testing.assert_array_equal(split.images, arrays()[f"{name}_images"])
        np.testing.assert_array_equal(split.labels, arrays()[f"{name}_labels"])
        assert split.labels.dtype == np.int32
    same, other = load_npz(written(tmp_path)), load_npz(written(tmp_path, test_labels=np.zeros(3, np.int64)))
    assert dataset.identity == same.identity != other.identity
    held = load_npz(written(tmp_path), validation=2)
    assert (held.train.size, held.evaluation.size) == (4, 2)
    assert load_npz(written(tmp_path, test_labels=np.zeros(3, np.int64))).num_classes == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"test_labels": None}, "has no array test_labels: it has test_images, train_images, train_labels"),
        ({"train_images": np.zeros((6, 4, 5, 3))}, r"train_images is float64 \[6, 4, 5, 3\]: give uint8 \[n, height"),
        ({"train_images": np.zeros((6, 4, 5), np.uint8)}, r"train_images is uint8 \[6, 4, 5\]: give uint8"),
        ({"test_images": np.zeros((0, 4, 5, 3), np.uint8)}, r"test_images is uint8 \[0, 4, 5, 3\]: give uint8"),
        ({"train_labels": np.zeros(6)}, r"train_labels is float64 \[6\]: give integers \[6\]"),
        ({"train_labels": np.zeros((6, 1), int)}, r"train_labels is int64 \[6, 1\]: give integers \[6\]"),
        ({"test_labels": np.zeros(2, int)}, r"test_labels is int64 \[2\]: give integers \[3\]"),
        ({"train_labels": np.full(6, -1)}, "numbered from 0"),
        ({"test_labels": np.array([0, 7, 2])}, r"test_labels has \[7\]"),
        ({"train_labels": np.array([{}] * 6)}, "is not an .npz file of arrays, or damaged"),
    ],
)
def test_arrays_that_do_not_fit_are_told(changes, told, tmp_path):
    with pytest.raises(td.UserError, match=rf"own.npz.*{told}"):
        load_npz(written(tmp_path, **changes))


def test_what_is_no_such_file_is_told(tmp_path):
    with pytest.raises(td.UserError, match="data.path='' .*train_images, train_labels"):
        data.load({"name": "npz", "path": ""})
    with pytest.raises(td.UserError, match="nowhere.npz' is not a file"):
        load_npz(str(tmp_path / "nowhere.npz"))
    whole = (tmp_path / "own.npz", written(tmp_path))[0].read_bytes()
    (tmp_path / "own.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(td.UserError, match=r"is not an .npz file of arrays, or damaged \(.*\): write it with np.savez"):
        load_npz(str(tmp_path / "own.npz"))
    np.save(tmp_path / "own.npy", arrays()["train_images"])
    with pytest.raises(td.UserError, match="is not an .npz file of arrays"):
        load_npz(str(tmp_path / "own.npy"))
