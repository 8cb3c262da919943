"""A folder of your own images: classes, crops and errors."""

import itertools

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import td
from td import data
from td.data.image_sources import load_folder
from td.io import run_folder

CLASSES = ["ant", "bee", "cat"]


def write(folder, split, count, classes=CLASSES, ending="png"):
    """Images of one shade, which tells the class."""
    for label, name in enumerate(classes):
        (folder / split / name).mkdir(parents=True)
        for i in range(count):
            shade = (60 * label + 20,) * 3
            Image.new("RGB", (20 + i, 30 - i), shade).save(folder / split / name / f"{i}.{ending}")
    return folder


@pytest.fixture
def own(tmp_path):
    write(tmp_path, "train", 4)
    return write(tmp_path, "val", 2, ending="JPG")


def shades(batch):
    return np.round((batch.images.mean(axis=(1, 2, 3)) - 20) / 60).astype(int).tolist()


def test_every_image_is_seen_once_an_epoch_with_the_label_of_its_folder(own):
    dataset = data.load({"name": "folder", "path": str(own), "image_size": 8, "batch_size": 4, "data_dir": ""})
    assert (dataset.train.size, dataset.evaluation.size, dataset.num_classes) == (12, 6, 3)
    epoch = list(itertools.islice(dataset.train.train_batches(4, 0, 0), 3))
    assert sorted(label for batch in epoch for label in batch.labels) == sorted([0, 1, 2] * 4)
    scored = next(dataset.evaluation.eval_batches(6))
    assert scored.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for batch in (*epoch, scored):
        assert shades(batch) == batch.labels.tolist() and batch.images.shape[1:] == (8, 8, 3)


@pytest.mark.parametrize("flip", [False, True])
def test_training_images_are_mirrored_where_asked(own, flip):
    for path in (own / "train").rglob("*.png"):
        Image.fromarray(np.tile(np.arange(0, 250, 10, dtype=np.uint8), (25, 1))).save(path)
    train = data.load({"name": "folder", "path": str(own), "image_size": 8, "flip": flip}).train
    crops = [image for batch in itertools.islice(train.train_batches(12, 0, 0), 2) for image in batch.images]
    assert {bool(crop[0, 0, 0] > crop[0, -1, 0]) for crop in crops} == {False, flip}


def test_classes_are_sorted_and_other_files_left_out(own):
    (own / "train" / ".hidden").mkdir()
    (own / "train" / "list.txt").write_text("ant")
    (own / "train" / "ant" / ".0.png").write_bytes(b"what some systems leave")
    (own / "train" / "ant" / "notes.txt").write_text("of an ant")
    (own / "train" / "bee" / "more").mkdir()
    (own / "train" / "bee" / "0.png").rename(own / "train" / "bee" / "more" / "0.png")
    source = load_folder(str(own)).train.source
    assert source.labels == (0,) * 4 + (1,) * 4 + (2,) * 4
    assert source.files[:5] == ("ant/0.png", "ant/1.png", "ant/2.png", "ant/3.png", "bee/1.png")
    assert source.files[7] == "bee/more/0.png"


def test_test_is_scored_where_there_is_no_val_and_training_images_where_asked(own):
    (own / "val").rename(own / "test")
    assert load_folder(str(own)).evaluation.source.folder == str(own / "test")
    held = load_folder(str(own), validation=5)
    rest, chosen = (set(split.indices) for split in (held.train, held.evaluation))
    assert len(chosen) == 5 and rest | chosen == set(range(12)) and not rest & chosen
    for path in sorted((own / "test").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (own / "test").rmdir()
    assert load_folder(str(own), validation=5).train.size == 7
    with pytest.raises(td.UserError, match=r"has no folder val or test: add one, or set data.validation"):
        load_folder(str(own))


def test_a_run_goes_on_with_the_images_it_learned_from_alone(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")

    def check():
        run_folder.check_data(folder, load_folder(str(own)).identity)

    run_folder.record(folder, ConfigDict(), load_folder(str(own)).identity)
    check()
    image = own / "val" / "bee" / "1.JPG"
    whole = image.read_bytes()
    for change in (
        lambda: image.unlink(),
        lambda: image.rename(own / "val" / "cat" / "7.JPG"),
    ):
        change()
        with pytest.raises(td.UserError, match="the run in .* was trained on other data"):
            check()
        image.write_bytes(whole)
    (own / "val" / "cat" / "7.JPG").unlink()
    image.write_bytes(whole + b"0")  # a corrupt one may be replaced
    check()
    assert load_folder(str(own), validation=1).identity != load_folder(str(own)).identity


def test_trap_grey_of_16_bits_is_seen_as_what_8_bits_show(own):
    for name in CLASSES:
        for path in (own / "train" / name).iterdir():
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L"))
            Image.fromarray(grey * np.uint16(257)).save(path)
    batches = itertools.islice(load_folder(str(own), image_size=8).train.train_batches(4, 0, 0), 3)
    assert all(shades(batch) == batch.labels.tolist() for batch in batches)
    Image.fromarray(grey.astype(np.float32)).save(path, format="TIFF")
    with pytest.raises(td.UserError, match=r"is corrupt \(mode F has 32 bits"):
        list(itertools.islice(load_folder(str(own), image_size=8).train.train_batches(4, 0, 0), 3))


def test_a_corrupt_image_is_named_or_skipped_where_asked(own):
    corrupt = own / "train" / "bee" / "2.png"
    corrupt.write_bytes(b"no image")
    with pytest.raises(td.UserError, match=r"bee/2.png is corrupt \(.*\): repair it, or set --config"):
        list(itertools.islice(load_folder(str(own), image_size=8).train.train_batches(4, 0, 0), 3))
    (own / "train" / "ant" / "1.png").unlink()
    (own / "train" / "ant" / "1.png").symlink_to("nowhere")
    skipping = load_folder(str(own), image_size=8, skip_corrupt=True).train
    batches = list(itertools.islice(skipping.train_batches(4, 0, 0), 3))
    assert all(shades(batch) == batch.labels.tolist() for batch in batches)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(own):
    alone, several = (load_folder(str(own), image_size=8, workers=workers).train for workers in (0, 1))
    pairs = zip(alone.train_batches(4, 1, 2), several.train_batches(4, 1, 2), strict=True)
    for one, other in itertools.islice(pairs, 4):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_what_is_no_such_folder_is_told(own, tmp_path_factory):
    with pytest.raises(td.UserError, match=r"data.path='': name a folder that has train/CLASS/"):
        data.load({"name": "folder", "path": ""})
    with pytest.raises(td.UserError, match="data.path=.*nowhere"):
        load_folder(str(own / "nowhere"))
    with pytest.raises(td.UserError, match="image_size"):
        load_folder(str(own), image_size=0)
    bare = tmp_path_factory.mktemp("bare")
    (bare / "train").mkdir()
    with pytest.raises(td.UserError, match="train has no images: it needs a folder of images for every class"):
        load_folder(str(bare), validation=1)
    (bare / "train" / "ant").mkdir()
    with pytest.raises(td.UserError, match="train/ant has no images: their names end in .jpeg, .jpg, .png"):
        load_folder(str(bare), validation=1)
    (own / "val" / "cat").rename(own / "val" / "dog")
    with pytest.raises(td.UserError, match="train and .*val differ in their classes: only one of them has cat, dog"):
        load_folder(str(own))
