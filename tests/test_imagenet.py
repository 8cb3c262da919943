"""Images that stay on disk: the order and crops of every step, faults, and what is there."""

import io
import itertools
import math

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import final_state, trees_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import td
from td import data
from td.data.base import Shard
from td.data.image_files import _random_box, centre_crop, random_resized_crop
from td.data.image_sources import load_prepared
from td.io.checkpoint import Checkpoints
from td.train.loop import train


class Photos(tfds.core.GeneratorBasedBuilder):
    """Photos of many sizes; the class is the shade. One is grey, and one can be no image at all."""

    VERSION = tfds.core.Version("1.0.0")
    CORRUPT = ()

    def _info(self):
        image = tfds.features.Image(encoding_format="jpeg")
        features = {"image": image, "label": tfds.features.ClassLabel(num_classes=8)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples(24), "validation": self._generate_examples(9)}

    def _generate_examples(self, count):
        for i in range(count):
            encoded = io.BytesIO()
            shade = Image.new(
                "L" if i == 3 else "RGB", (20 + i, 40 - i), 30 * (i % 8) if i == 3 else (30 * (i % 8),) * 3
            )
            shade.save(encoded, format="JPEG", quality=95)
            yield i, {"image": b"no image" if i in self.CORRUPT else encoded.getvalue(), "label": i % 8}


class Torn(Photos):
    """The same with two images that are none."""

    CORRUPT = (5, 6)


class Rated(Photos):
    """The same with a number instead of a class."""

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "label": np.int64}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (Photos, Torn, Rated):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def photos(folder):
    return load_prepared("photos", image_size=16, data_dir=str(folder))


def shades(batch):
    """The class that a batch's pixels show."""
    return np.round(batch.images.mean(axis=(1, 2, 3)) / 30).astype(int).tolist()


def test_every_image_is_seen_once_an_epoch_with_its_label(photos):
    assert (photos.train.size, photos.evaluation.size, photos.num_classes) == (24, 9, 8)
    stream = photos.train.train_batches(6, 0, 0)
    for _ in range(2):
        epoch = list(itertools.islice(stream, 4))
        assert all(shades(batch) == batch.labels.tolist() for batch in epoch)
        assert sorted(label for batch in epoch for label in batch.labels) == sorted([*range(8)] * 3)
    assert epoch[0].images.shape == (6, 16, 16, 3) and epoch[0].images.dtype == np.uint8


def test_a_step_has_the_same_batch_wherever_a_run_begins(photos):
    whole = list(itertools.islice(photos.train.train_batches(5, 3, 0), 8))
    for first in (0, 4, 7):
        batch = next(photos.train.train_batches(5, 3, first))
        np.testing.assert_array_equal(batch.images, whole[first].images)
        np.testing.assert_array_equal(batch.labels, whole[first].labels)
    orders = [[tuple(batch.labels) for batch in whole[:4]]]
    orders += [[tuple(b.labels) for b in itertools.islice(photos.train.train_batches(5, 4, 0), 4)]]
    orders += [[tuple(b.labels) for b in itertools.islice(photos.train.sample_batches(5, 3), 4)]]
    assert orders[0] != orders[1] and len({len(order) for order in orders}) == 1


def test_hosts_read_parts_that_make_the_whole(photos):
    whole = list(itertools.islice(photos.train.train_batches(6, 3, 2), 5))
    parts = [list(itertools.islice(photos.train.train_batches(6, 3, 2, Shard(host, 2)), 5)) for host in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch.images, np.concatenate([first.images, second.images]))
        np.testing.assert_array_equal(batch.labels, np.concatenate([first.labels, second.labels]))


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(photos):
    several = photos.train._replace(workers=1)
    pairs = zip(photos.train.train_batches(6, 1, 2), several.train_batches(6, 1, 2), strict=True)
    for alone, together in itertools.islice(pairs, 5):
        np.testing.assert_array_equal(alone.images, together.images)
        np.testing.assert_array_equal(alone.labels, together.labels)


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_scoring_sees_every_image_exactly_once(photos, batch_size):
    batches = list(photos.evaluation.eval_batches(batch_size))
    seen = [label for batch in batches for label, weight in zip(batch.labels, batch.weights, strict=True) if weight]
    assert sorted(seen) == sorted([*range(8), 0])
    assert len({batch.images.shape for batch in batches}) == 1


def test_images_that_are_held_out_are_not_learned_from(folder):
    dataset = load_prepared("photos", image_size=16, validation=6, data_dir=str(folder))
    rest, held = (set(split.indices) for split in (dataset.train, dataset.evaluation))
    assert len(held) == 6 and rest | held == set(range(24)) and not rest & held


def test_a_corrupt_record_is_named_or_skipped_where_asked(folder):
    torn = load_prepared("torn", image_size=16, data_dir=str(folder))
    with pytest.raises(td.UserError, match=r"record \d+ of train in .*torn.* is corrupt .*skip_corrupt=true"):
        list(itertools.islice(torn.train.train_batches(6, 0, 0), 4))
    torn = load_prepared("torn", image_size=16, skip_corrupt=True, data_dir=str(folder))
    batches = list(itertools.islice(torn.train.train_batches(6, 0, 0), 4))
    assert all(shades(batch) == batch.labels.tolist() for batch in batches)
    nothing = torn.train._replace(indices=(torn_place(folder),))
    with pytest.raises(td.UserError, match="is corrupt .* as is every other image"):
        nothing.read(0, lambda image: image)


def torn_place(folder):
    split = load_prepared("torn", image_size=16, data_dir=str(folder)).train
    for place in range(24):
        try:
            split._replace(indices=(place,)).read(0, lambda image: centre_crop(image, 4))
        except td.UserError:
            return place
    raise AssertionError("no record is corrupt")


def test_an_unknown_set_is_told_with_what_is_there(folder):
    with pytest.raises(td.UserError, match="did you mean 'photos'.*torn"):
        data.load({"name": "photo", "data_dir": str(folder)})
    with pytest.raises(td.UserError, match="rated has .*: it needs .* ClassLabel"):
        load_prepared("rated", data_dir=str(folder))
    found = data.load({"name": "photos", "image_size": 8, "flip": True, "data_dir": str(folder)}).train
    assert found.image_size == 8 and found.flip


@pytest.mark.slow
def test_a_run_from_disk_is_cut_and_goes_on_in_the_same_bits(folder, smoke_config, tmp_path, one_device, monkeypatch):
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    config.data.update(name="photos", data_dir=str(folder), image_size=12, batch_size=8, validation=0)
    config.duration, config.every.checkpoint = "8 steps", "3 steps"
    train(config, tmp_path / "whole", one_device)
    save = Checkpoints.save

    def dies(checkpoints, number, state):
        save(checkpoints, number, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", dies)
        train(config, tmp_path / "cut", one_device)
    train(config, tmp_path / "cut", one_device)
    assert trees_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))


def test_the_centre_crop_is_seven_eighths_of_the_shorter_side():
    image = np.zeros((64, 100, 3), np.uint8)
    image[4:60, 22:78] = 200  # 56 x 56 in the middle
    crop = np.asarray(centre_crop(Image.fromarray(image), 56))
    assert (crop == 200).all()
    image[4], image[:, 77] = 0, 100
    crop = np.asarray(centre_crop(Image.fromarray(image), 56))
    assert (crop[0, :-1] == 0).all() and (crop[1:, :-1] == 200).all() and (crop[1:, -1] == 100).all()


@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 5))
@settings(deadline=None)
def test_random_crops_lie_inside_and_have_their_shape(width, height, seed):
    left, top, right, bottom = _random_box(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    wide, high = right - left, bottom - top
    if min(width, height) > 60:
        assert 0.079 < wide * high / (width * height) <= 1.0
        assert 0.7 < wide / high < 1.4 or math.isclose(wide, high)


def test_half_of_the_crops_are_mirrored():
    left_to_right = np.tile(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], (50, 1, 3))
    image, rng = Image.fromarray(left_to_right), np.random.default_rng(0)
    crops = [np.asarray(random_resized_crop(image, rng, 8, flip=True), int) for _ in range(200)]
    falling = sum(bool(crop[0, 0, 0] > crop[0, -1, 0]) for crop in crops)
    assert 70 < falling < 130
