"""Handwritten digits, 8x8, real scans that scikit-learn carries inside its package: no download."""

import numpy as np

from td.data.base import Dataset
from td.data.in_memory import Split, hold_out
from td.data.task import classification

TRAIN_EXAMPLES = 1400


def load(validation: int = 0, pad: int = 0, flip: bool = False) -> Dataset:
    """Load the 1,797 digits: 1,400 to train on and 397 to test on, in a fixed random order.

    Source: UCI "Optical Recognition of Handwritten Digits", test part.
    """
    from sklearn.datasets import load_digits  # takes longer than all else that a command imports

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (15 * pixels[order]).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels[order].astype(np.int32)
    train, test = np.split(images, [TRAIN_EXAMPLES]), np.split(labels, [TRAIN_EXAMPLES])
    splits = hold_out(Split(train[0], test[0]), Split(train[1], test[1]), validation)
    return Dataset(*splits, 10, classification(pad, flip), class_names=tuple("0123456789"))
