"""Images too many for memory: read one by one with Grain, decoded and cropped in worker processes."""

import io
import logging
import os
import re
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from PIL import Image

from td.data.base import WHOLE, Batch, Part, blank_images, held_out, images_per_step
from td.data.image_crops import centre_crop, random_resized_crop
from td.errors import UserError

LOG = logging.getLogger(__name__)

Example = dict[str, Any]


@runtime_checkable
class Source(Protocol):
    """Where the encoded images of a split lie; it can be pickled, to be read in any process."""

    def read(self, index: int) -> tuple[bytes, int]:
        """One encoded image and its label."""

    def name(self, index: int) -> str:
        """What to call that image in an error line."""

    @property
    def whole(self) -> str:
        """What to call all of them there."""

    @property
    def repair(self) -> str:
        """What to do about a corrupt one."""


class Records(NamedTuple):
    """The images of a split, or some of them."""

    source: Source
    indices: tuple[int, ...] | range  # which of its images, in order
    skip_corrupt: bool  # whether the next whole image takes the place of one that cannot be decoded

    def read(self, number: int, crop: Any) -> Example:
        """One example, decoded and cropped."""
        for ahead in range(len(self.indices)):
            index = self.indices[(number + ahead) % len(self.indices)]
            try:
                encoded, label = self.source.read(index)
                with Image.open(io.BytesIO(encoded)) as image:
                    pixels = np.asarray(crop(_rgb(image)))
                return {"images": pixels, "labels": np.int32(label)}
            except (OSError, ValueError, RuntimeError, SyntaxError) as error:  # what Pillow and array_record raise
                reason = re.split(r"\n| <", str(error))[0]
                what = f"{self.source.name(index)} is corrupt ({reason})"
                if not self.skip_corrupt:
                    advice = f"{self.source.repair}, or give --config.data.skip_corrupt=true"
                    raise UserError(f"{what}: {advice}") from None
                LOG.warning("%s: the next one takes its place", what)
        raise UserError(f"every {self.source.whole} is corrupt: {self.source.repair}")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"its mode is {image.mode}, of 32 bits: save it with 8 or 16")
    if image.mode.startswith("I;16"):  # of which Pillow makes white whatever is above 255; of 16-bit colours, this
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


class _Train(grain.transforms.RandomMap):
    def __init__(self, records: Records, size: int, flip: bool) -> None:
        self.records, self.size, self.flip = records, size, flip

    def random_map(self, element: int, rng: np.random.Generator) -> Example:
        return self.records.read(element, partial(random_resized_crop, rng=rng, size=self.size, flip=self.flip))


class _Evaluate(grain.transforms.Map):
    def __init__(self, records: Records, size: int) -> None:
        self.records, self.size = records, size

    def map(self, element: int) -> Example:
        return self.records.read(element, partial(centre_crop, size=self.size))


class ImageFiles(NamedTuple):
    """A split that stays on disk: an `Examples`."""

    records: Records  # its encoded images
    image_size: int  # height and width of what comes out
    flip: bool  # whether training images are mirrored at random
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
        """Random crops in an order and of parts that depend on seed and step alone."""
        visits = grain.MapDataset.range(self.size).seed(seed).shuffle().repeat()
        parts = visits.random_map(_Train(self.records, self.image_size, self.flip)).batch(batch_size // part.parts)
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
        # Grain's default holds 500 elements, which are batches here: of ImageNet's, twenty gigabytes in every process.
        threads = max(1, min(16, os.cpu_count() or 1) // max(1, self.workers))
        stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
        if self.workers:
            if not flags.FLAGS.is_parsed():  # Grain reads one; outside of an absl app nobody has parsed any
                flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        batches = iter(stream)
        try:
            for batch in batches:
                yield Batch(batch["images"], batch["labels"], np.ones(len(batch["labels"]), np.float32))
        finally:
            batches.close()  # ends the workers


def split_files(
    splits: Sequence[tuple[Source, int]], validation: int, image_size: int, flip: bool, workers: int, skip_corrupt: bool
) -> tuple[ImageFiles, ImageFiles]:
    """What is learned from and what is scored, of two splits and their sizes, or of one with images held out."""

    def files(source: Source, indices: tuple[int, ...] | range) -> ImageFiles:
        return ImageFiles(Records(source, indices, skip_corrupt), image_size, flip, workers)

    source, size = splits[0]
    if validation:
        rest, chosen = held_out(size, validation)
        return files(source, tuple(rest.tolist())), files(source, tuple(chosen.tolist()))
    scored, scored_size = splits[1]
    return files(source, range(size)), files(scored, range(scored_size))
