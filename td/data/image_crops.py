"""Crops of images of any size to squares of one size, on the host."""

import math

import numpy as np
from PIL import Image

ATTEMPTS = 10
"""How often a random crop that does not fit is drawn again."""


def random_resized_crop(image: Image.Image, rng: np.random.Generator, size: int, flip: bool) -> Image.Image:
    """A random part of an image, 8 to 100 % of its area, 3:4 to 4:3, stretched to a square; `flip`: half are mirrored.

    Source: Szegedy et al. 2015, section 6.
    """
    box = _random_box(*image.size, rng)
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and rng.random() < 0.5 else crop


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    for _ in range(ATTEMPTS):
        area = rng.uniform(0.08, 1.0) * width * height
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = float(rng.integers(width - wide + 1)), float(rng.integers(height - high + 1))
            return (left, top, left + wide, top + high)
    return _middle(width, height, float(min(width, height)))


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle of an image: a square of 7/8 of its shorter side (224 of 256), stretched to one size."""
    box = _middle(*image.size, min(image.size) * 224 / 256)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _middle(width: int, height: int, side: float) -> tuple[float, float, float, float]:
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)
