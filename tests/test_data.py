"""Data: digits, a small TFDS set written here, the order of visits, augmentation, the cache."""

import io
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets

import td
from td import data
from td.data import Split, augment, in_memory, standardize
from td.data.base import random_crop, random_flip
from td.io import files

SIZES = {"train": 12, "test": 5}


def picture(index):
    return np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A stand-in of 17 images under the official name."""

    VERSION = tfds.core.Version("3.0.2")
    FIRST = 0

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in SIZES}

    def _generate_examples(self, split):
        for i in range(SIZES[split]):
            encoded = io.BytesIO()
            Image.fromarray(picture(self.FIRST + i)).save(encoded, format="PNG")
            yield i, {"image": encoded.getvalue(), "label": i % 10}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Cifar10(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_tfds_images_are_decoded_once_and_kept(prepared, tmp_path, monkeypatch):
    dataset = in_memory.load_tfds("cifar10", data_dir=str(prepared), cache_dir=str(tmp_path))
    assert dataset.num_classes == 10 and dataset.train.images.shape == (12, 32, 32, 3)
    # Records lie shuffled on disk, so images are compared through their labels.
    for image, label in zip(dataset.train.images[:10], dataset.train.labels[:10], strict=True):
        assert any(np.array_equal(image, picture(i)) for i in range(12) if i % 10 == label)
    names = [path.name.rpartition("-")[0] for path in tmp_path.iterdir()]
    assert sorted(names) == ["cifar10-3.0.2-test", "cifar10-3.0.2-train"]
    copied = shutil.copytree(prepared, tmp_path / "copied", copy_function=shutil.copy)
    monkeypatch.setattr(in_memory, "_decode", None)
    for folder in (prepared, copied):
        again = in_memory.load_tfds("cifar10", data_dir=str(folder), cache_dir=str(tmp_path))
        np.testing.assert_array_equal(again.train.images, dataset.train.images)


def test_trap_other_data_of_the_same_name_are_not_taken_from_the_cache(prepared, tmp_path):
    class Other(Cifar10, skip_registration=True):
        name, FIRST = "cifar10", 100

    Other(data_dir=tmp_path / "other", file_format="array_record").download_and_prepare()
    first, other = (
        in_memory.load_tfds("cifar10", data_dir=str(folder), cache_dir=str(tmp_path / "cache")).train.images
        for folder in (prepared, tmp_path / "other")
    )
    assert {*map(bytes, other)} == {bytes(picture(100 + i)) for i in range(12)} and not np.array_equal(first, other)


def test_tfds_data_dir_is_read_from_the_environment(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(in_memory.load_tfds("cifar10", cache_dir=str(tmp_path)).evaluation.labels) == 5


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-900] + b"x" * 900])
def test_a_corrupt_cache_file_is_told_and_left(prepared, tmp_path, damage):
    load = lambda: in_memory.load_tfds("cifar10", data_dir=str(prepared), cache_dir=str(tmp_path))  # noqa: E731
    load()
    (path,) = tmp_path.glob("*-train-*")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(td.UserError, match=r"cifar10-3.0.2-train-\w+.npz is corrupt .*: delete it and run again"):
        load()
    path.unlink()
    load()


def test_damaged_tfds_data_is_told(prepared, tmp_path):
    folder = tmp_path / "tfds"
    shutil.copytree(prepared, folder)
    for record in folder.rglob("*train*.array_record*"):
        record.write_bytes(record.read_bytes()[:20])
    with pytest.raises(td.UserError, match=r"is damaged .*: delete it and prepare it again"):
        in_memory.load_tfds("cifar10", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))


def test_an_interrupted_decode_leaves_no_cache_file(prepared, tmp_path, monkeypatch):
    def broken(path, **arrays):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(KeyboardInterrupt):
        in_memory.load_tfds("cifar10", data_dir=str(prepared), cache_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_trap_processes_of_one_number_in_two_containers_write_to_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with files.replacing(tmp_path / "a.npz") as one, files.replacing(tmp_path / "a.npz") as other:
        assert one != other and {path.suffix for path in (one, other)} == {".npz"}
        for path in (one, other):
            path.write_text(path.name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_missing_data_names_the_command(tmp_path):
    with pytest.raises(td.UserError, match=r"run `td-prepare-data cifar100 --data_dir="):
        in_memory.load_tfds("cifar100", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "classes"),
    [
        ("cifar10", 50_000, 10_000, (32, 32, 3), 10),
        ("cifar100", 50_000, 10_000, (32, 32, 3), 100),
        ("mnist", 60_000, 10_000, (28, 28, 1), 10),
        ("fashion_mnist", 60_000, 10_000, (28, 28, 1), 10),
    ],
)
def test_the_real_data_where_it_is(name, train, test, shape, classes, tmp_path):
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not os.path.isdir(os.path.join(folder, name)):
        pytest.skip(f"{name} is not prepared: set TFDS_DATA_DIR to a folder that holds it")
    dataset = in_memory.load_tfds(name, data_dir=folder, cache_dir=os.environ.get("TD_TEST_CACHE_DIR", str(tmp_path)))
    assert dataset.train.images.shape == (train, *shape) and dataset.evaluation.images.shape == (test, *shape)
    assert dataset.num_classes == classes and set(np.unique(dataset.train.labels)) == set(range(classes))


def test_digits_split():
    dataset = data.load_digits()
    assert (len(dataset.train.labels), len(dataset.evaluation.labels)) == (1400, 397)
    assert dataset.train.images.max() == 240 and dataset.train.images.dtype == np.uint8
    assert set(np.unique(dataset.evaluation.labels)) == set(range(10))
    whole = np.concatenate([dataset.train.images, dataset.evaluation.images]).reshape(1797, 64)
    assert sorted(map(bytes, whole)) == sorted(map(bytes, (15 * datasets.load_digits().data).astype(np.uint8)))


def test_every_order_is_drawn_once_for_many_seeds(monkeypatch):
    draw, drawn = np.random.default_rng, []
    monkeypatch.setattr(np.random, "default_rng", lambda seed: (drawn.append(seed), draw(seed))[1])
    split = Split(np.zeros((11, 1, 1, 1), np.uint8), np.arange(11, dtype=np.int32))
    for step in range(5):
        for seed in range(16):
            split.train_batch(step, 3, seed)
    assert sorted(drawn) == [[seed, epoch] for seed in range(16) for epoch in range(2)]


def test_validation_is_held_out_of_training():
    whole, held = data.load_digits(), data.load_digits(validation=300)
    assert (len(held.train.labels), len(held.evaluation.labels)) == (1100, 300)
    both = np.concatenate([held.train.images, held.evaluation.images]).reshape(1400, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole.train.images.reshape(1400, -1)))
    with pytest.raises(td.UserError, match="out of range"):
        data.load_digits(validation=1400)


def test_every_example_once_an_epoch_in_an_order_of_its_own():
    split = Split(np.zeros((10, 1, 1, 1), np.uint8), np.arange(10, dtype=np.int32))
    visits = np.concatenate([split.train_batch(step, 4, seed=0).labels for step in range(5)])
    first, second = visits[:10].tolist(), visits[10:].tolist()
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    np.testing.assert_array_equal(split.train_batch(3, 4, seed=0).labels, visits[12:16])
    assert split.train_batch(3, 4, seed=1).labels.tolist() != visits[12:16].tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 397, 500])
def test_every_test_image_is_scored_exactly_once(batch_size):
    split = data.load_digits().evaluation
    batches = list(split.eval_batches(batch_size))
    assert {batch.images.shape for batch in batches} == {(min(batch_size, 397), 8, 8, 1)}
    counted = np.concatenate([batch.images[batch.weights > 0] for batch in batches])
    np.testing.assert_array_equal(counted, split.images)


def test_standardize_by_hand_and_of_a_flat_image():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    flat = pictures.reshape(3, -1).astype(np.float64)
    expected = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    np.testing.assert_allclose(np.reshape(standardize(pictures), (3, -1)), expected, atol=1e-5)
    assert not standardize(np.full((1, 4, 4, 3), 9, np.uint8)).any()


def test_crop_cuts_a_window_of_the_padded_image():
    pictures = 1 + np.arange(2 * 5 * 5 * 1, dtype=np.uint8).reshape(2, 5, 5, 1)
    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for seed in range(8):
        for whole, cut in zip(padded, random_crop(jax.random.key(seed), jnp.asarray(pictures), 2), strict=True):
            windows = [whole[y : y + 5, x : x + 5] for y in range(5) for x in range(5)]
            assert any(np.array_equal(cut, window) for window in windows)


def test_flip_mirrors_about_half_of_the_images():
    pictures = jnp.asarray(np.random.default_rng(0).integers(0, 256, (200, 2, 3, 1), np.uint8))
    flipped = random_flip(jax.random.key(0), pictures)
    mirrored = (flipped == pictures[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (flipped == pictures).all(axis=(1, 2, 3))
    assert bool((mirrored | same).all()) and 60 < int(mirrored.sum()) < 140


def test_augment_is_a_function_of_its_key():
    pictures = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8))
    one, same, other = (augment(jax.random.key(seed), pictures, 4, True) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert one.dtype == jnp.uint8 and not np.array_equal(one, other)
