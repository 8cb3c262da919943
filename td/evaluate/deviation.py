"""Deviations of outputs: those allowed between a network and a smaller one, or a file, that was made of it."""

from typing import Any

import numpy as np

TOLERANCE = 1e-4  # largest deviation, relative to the largest output: sums are taken in another order
COARSE = {"bfloat16": 5e-2, "float16": 1e-2}  # the same for dtypes of fewer bits


def deviation(expected: Any, found: Any) -> float:
    """Measure the largest difference, relative to the largest finite output; equal infinities and NaNs agree."""
    expected, found = (np.asarray(array, np.float64) for array in (expected, found))
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=np.finfo(np.float32).tiny)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return float(np.abs(np.subtract(found, expected, where=~same, out=np.zeros_like(expected))).max(initial=0) / scale)
