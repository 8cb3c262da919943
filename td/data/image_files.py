"""Images that stay on disk: read one by one with Grain, decoded and cropped in worker processes."""

import io
import logging
import math
import os
import re
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from PIL import Image

from td.data.base import WHOLE, Batch, Shard, images_per_step, split_indices
from td.errors import UserError, check_at_least

LOG = logging.getLogger(__name__)

Example = dict[str, Any]


@runtime_checkable
class Source(Protocol):
    """The encoded images of a split. Worker processes receive it pickled."""

    def read(self, index: int) -> tuple[bytes, int]:
        """Read one encoded image and its label."""

    def name(self, index: int) -> str:
        """Name that image in an error message."""


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has 32 bits: save it with 8 or 16")
    if image.mode.startswith("I;16"):  # Pillow would turn whatever is above 255 white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def random_resized_crop(image: Image.Image, rng: np.random.Generator, size: int, flip: bool) -> Image.Image:
    """Crop 8 to 100 % of the area, aspect ratio 3:4 to 4:3, to a square (Szegedy et al. 2015); may mirror it."""
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box=_random_box(*image.size, rng))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and rng.random() < 0.5 else crop


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * width * height
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = float(rng.integers(width - wide + 1)), float(rng.integers(height - high + 1))
            return (left, top, left + wide, top + high)
    return _centre_box(width, height, float(min(width, height)))


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the central square of 7/8 of the shorter side (224 of 256) and resize it."""
    box = _centre_box(*image.size, min(image.size) * 224 / 256)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _centre_box(width: int, height: int, side: float) -> tuple[float, float, float, float]:
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)


class ImageFiles(NamedTuple):
    """A split that stays on disk: an `Examples`."""

    source: Source
    indices: tuple[int, ...] | range  # of images in the source
    image_size: int  # height and width after cropping
    flip: bool  # mirror half of the training images
    workers: int  # processes that decode; 0: threads of this process
    skip_corrupt: bool  # replace an image that cannot be decoded by the next valid one

    @property
    def size(self) -> int:
        return len(self.indices)

    def examples_per_step(self, batch_size: int) -> float:
        return images_per_step(batch_size, self.size)

    def row_counts(self, batch_size: int) -> tuple[int, ...]:
        return (batch_size,)

    def blank_batch(self, rows: int) -> Batch:
        return Batch.blank(rows, (self.image_size, self.image_size, 3))

    def train_batches(
        self, batch_size: int, seed: int, first: int, shard: Shard = WHOLE
    ) -> Generator[Batch, None, None]:
        """Yield random crops in an order and of boxes that depend on seed and step alone."""
        visits = grain.MapDataset.range(self.size).seed(seed).shuffle().repeat()
        shards = visits.random_map(self._cropped).batch(batch_size // shard.hosts)
        return self._iterate(shards[first * shard.hosts + shard.host :: shard.hosts])

    def sample_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        visits = grain.MapDataset.range(self.size).seed(seed).shuffle().repeat()
        return self._iterate(visits.map(self._centred).batch(batch_size))

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield centre crops, every image once; the last batch is padded with images of weight 0."""
        batch_size = min(batch_size, self.size)
        visits = grain.MapDataset.range(-(-self.size // batch_size) * batch_size)
        batches = self._iterate(visits.map(lambda number: self._centred(min(number, self.size - 1))).batch(batch_size))
        for number, batch in enumerate(batches):
            scored = np.arange(number * batch_size, (number + 1) * batch_size) < self.size
            yield batch._replace(weights=scored.astype(np.float32))

    def _cropped(self, number: int, rng: np.random.Generator) -> Example:
        return self.read(number, partial(random_resized_crop, rng=rng, size=self.image_size, flip=self.flip))

    def _centred(self, number: int) -> Example:
        return self.read(number, partial(centre_crop, size=self.image_size))

    def read(self, number: int, crop: Any) -> Example:
        """Read, decode and crop one example."""
        for ahead in range(len(self.indices)):
            index = self.indices[(number + ahead) % len(self.indices)]
            try:
                encoded, label = self.source.read(index)
                with Image.open(io.BytesIO(encoded)) as image:
                    pixels = np.asarray(crop(_rgb(image)))
                return {"images": pixels, "labels": np.int32(label)}
            except (OSError, ValueError, RuntimeError, SyntaxError) as error:  # what Pillow and array_record raise
                reason = re.split(r"\n| <", str(error))[0]
                corrupt = f"{self.source.name(index)} is corrupt ({reason})"
                if not self.skip_corrupt:
                    raise UserError(f"{corrupt}: repair it, or set --config.data.skip_corrupt=true") from None
                LOG.warning("%s: replaced by the next image", corrupt)
        raise UserError(f"{corrupt}, as is every other image")

    def _iterate(self, batches: Any) -> Generator[Batch, None, None]:
        # Grain prefetches 500 elements by default. Elements are batches here: 20 GB of ImageNet in every process.
        threads = max(1, min(16, os.cpu_count() or 1) // max(1, self.workers))
        stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
        if self.workers:
            if not flags.FLAGS.is_parsed():  # Grain reads a flag; only an absl app has parsed it
                flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        batches = iter(stream)
        try:
            for batch in batches:
                yield Batch(batch["images"], batch["labels"], np.ones(len(batch["labels"]), np.float32))
        finally:
            batches.close()  # ends the workers


def image_splits(
    sources: Sequence[tuple[Source, int]],
    validation: int,
    image_size: int,
    flip: bool,
    workers: int,
    skip_corrupt: bool,
) -> tuple[ImageFiles, ImageFiles]:
    """Return the splits to train on and to score, of sources and their sizes: train and, if none are held out, test."""
    check_at_least("data.image_size", image_size, 1)
    check_at_least("data.workers", workers)

    def files(source: Source, indices: tuple[int, ...] | range) -> ImageFiles:
        return ImageFiles(source, indices, image_size, flip, workers, skip_corrupt)

    source, size = sources[0]
    if validation:
        rest, chosen = split_indices(size, validation)
        return files(source, tuple(rest.tolist())), files(source, tuple(chosen.tolist()))
    scored, scored_size = sources[1]
    return files(source, range(size)), files(scored, range(scored_size))
