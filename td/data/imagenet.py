"""Images too many for memory: read record by record with Grain, decoded in worker processes."""

import io
import logging
import re
from collections.abc import Generator, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from PIL import Image
from tensorflow_datasets.core.decode import SkipDecoding

from td.data.base import WHOLE, Batch, Dataset, Part, blank_images, held_out, images_per_step
from td.data.image_crops import centre_crop, random_resized_crop
from td.data.task import classification
from td.data.tfds_folder import find, folder_of
from td.errors import UserError, check_at_least

LOG = logging.getLogger(__name__)

Example = dict[str, Any]


@lru_cache(maxsize=4)
def _source(folder: str, split: str) -> Any:
    builder = tfds.builder_from_directory(folder)
    return builder.as_data_source(split, decoders={"image": SkipDecoding()})


class Records(NamedTuple):
    """The encoded images of a split, as Grain reads them in any process."""

    folder: str  # of the prepared data set
    split: str  # its name there
    indices: tuple[int, ...] | range  # which of its records, in order
    skip_corrupt: bool  # whether the next whole record takes the place of one that cannot be decoded

    def read(self, number: int, crop: Any) -> Example:
        """One example, decoded and cropped."""
        for ahead in range(len(self.indices)):
            index = self.indices[(number + ahead) % len(self.indices)]
            try:
                record = _source(self.folder, self.split)[index]
                with Image.open(io.BytesIO(record["image"])) as image:
                    pixels = np.asarray(crop(image.convert("RGB")))
                return {"images": pixels, "labels": np.int32(record["label"])}
            except (OSError, ValueError, RuntimeError, SyntaxError) as error:  # what Pillow and array_record raise
                reason = re.split(r"\n| <", str(error))[0]
                what = f"record {index} of {self.split} in {self.folder} is corrupt ({reason})"
                if not self.skip_corrupt:
                    advice = "prepare the data again, or give --config.data.skip_corrupt=true"
                    raise UserError(f"{what}: {advice}") from None
                LOG.warning("%s: the next one takes its place", what)
        raise UserError(f"every record of {self.split} in {self.folder} is corrupt: prepare the data again")


class _Train(grain.transforms.RandomMap):
    def __init__(self, records: Records, size: int) -> None:
        self.records, self.size = records, size

    def random_map(self, element: int, rng: np.random.Generator) -> Example:
        return self.records.read(element, partial(random_resized_crop, rng=rng, size=self.size))


class _Evaluate(grain.transforms.Map):
    def __init__(self, records: Records, size: int) -> None:
        self.records, self.size = records, size

    def map(self, element: int) -> Example:
        return self.records.read(element, partial(centre_crop, size=self.size))


class ImageFiles(NamedTuple):
    """A split that stays on disk: an `Examples`."""

    records: Records  # its encoded images
    image_size: int  # height and width of what comes out
    workers: int  # processes that decode; 0: threads of this one

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.records.indices)

    def examples_per_step(self, batch_size: int) -> float:
        """The batch size, if there are so many images."""
        return images_per_step(batch_size, self.size)

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        """The batch size."""
        return (batch_size,)

    def blank_batch(self, rows: int) -> Batch:
        """Black images; no worker is started for them."""
        return blank_images(rows, (self.image_size, self.image_size, 3))

    def train_batches(self, batch_size: int, seed: int, first: int, part: Part = WHOLE) -> Generator[Batch, None, None]:
        """Random crops, mirrored at random, in an order and with crops that depend on seed and step alone."""
        visits = grain.MapDataset.range(self.size).seed(seed).shuffle().repeat()
        parts = visits.random_map(_Train(self.records, self.image_size)).batch(batch_size // part.parts)
        return self._iterate(parts[first * part.parts + part.number :: part.parts])

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Centre crops in a random order."""
        visits = grain.MapDataset.range(self.size).seed(seed).shuffle().repeat()
        return self._iterate(visits.map(_Evaluate(self.records, self.image_size)).batch(batch_size))

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Centre crops, every image exactly once; the last batch is padded with images of weight 0."""
        batch_size = min(batch_size, self.size)
        visits = grain.MapDataset.range(-(-self.size // batch_size) * batch_size)
        indices = visits.map(lambda number: min(number, self.size - 1))
        batches = self._iterate(indices.map(_Evaluate(self.records, self.image_size)).batch(batch_size))
        for number, batch in enumerate(batches):
            scored = np.arange(number * batch_size, (number + 1) * batch_size) < self.size
            yield batch._replace(weights=scored.astype(np.float32))

    def _iterate(self, batches: Any) -> Generator[Batch, None, None]:
        stream = batches.to_iter_dataset()
        if self.workers:
            if not flags.FLAGS.is_parsed():  # Grain reads one; in a program that is no absl app nobody has parsed any
                flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        batches = iter(stream)
        try:
            for batch in batches:
                yield Batch(batch["images"], batch["labels"], np.ones(len(batch["labels"]), np.float32))
        finally:
            batches.close()  # ends the workers


def load(
    name: str,
    image_size: int = 224,
    validation: int = 0,
    workers: int = 0,
    skip_corrupt: bool = False,
    data_dir: str = "",
) -> Dataset:
    """Load any prepared TFDS set of labelled images."""
    check_at_least("data.image_size", image_size, 1)
    check_at_least("data.workers", workers)
    builder = find(name, folder_of(data_dir))
    features, splits = builder.info.features, builder.info.splits
    missing = {"image", "label"} - set(features)
    if missing:
        raise UserError(f"{name} is no set of labelled images: it has {', '.join(features)}, no {missing.pop()}")
    scored = next((split for split in ("validation", "test") if split in splits), "")
    if "train" not in splits or not (scored or validation):
        raise UserError(f"{name} has the splits {', '.join(splits)}: train and validation or test are needed")

    def files(split: str, indices: Any) -> ImageFiles:
        return ImageFiles(Records(str(Path(builder.data_dir)), split, indices, skip_corrupt), image_size, workers)

    total = splits["train"].num_examples
    if validation:
        rest, chosen = held_out(total, validation)
        train, evaluation = files("train", tuple(rest.tolist())), files("train", tuple(chosen.tolist()))
    else:
        train, evaluation = files("train", range(total)), files(scored, range(splits[scored].num_examples))
    return Dataset(train, evaluation, features["label"].num_classes, classification())
