"""A network, a data set, a method and a criterion of your own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import td
from td.criteria import Criterion
from td.data import Dataset, Split
from td.data.base import classification


class Net(nn.Module):
    """Three dense layers; `num_classes` comes from the data set, `train` from the training loop."""

    num_classes: int
    width: int = 32

    @nn.compact
    def __call__(self, images, train=False):
        hidden = nn.relu(nn.Dense(self.width)(images.reshape(len(images), -1)))
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.width)(hidden)))


def stripes(seed: int = 0, noise: int = 60) -> Dataset:
    """Make noisy images of horizontal or vertical stripes."""

    def split(count, seed):
        draw = np.random.default_rng(seed)
        labels = draw.integers(0, 2, count).astype(np.int32)
        rows = np.tile(np.arange(8) % 2, (8, 1))
        images = np.where(labels[:, None, None], rows, rows.T) * 120 + draw.integers(0, noise, (count, 8, 8))
        return Split(images[..., None].astype(np.uint8), labels)

    return Dataset(split(512, seed), split(128, seed + 1), 2, classification())


def noisy(scale: float = 0.1, *, kernels: td.kernels.Patterns = td.KERNELS) -> td.MaskTransform:
    """Add Gaussian noise to every weight in training."""

    def apply(params, mask_vars, *, key, step):
        if key is None:
            return params, mask_vars
        keys = td.kernels.kernel_keys(key, step, td.kernels.find_kernels(params, kernels))
        add = lambda path, matrix: matrix + scale * jax.random.normal(keys[path], matrix.shape)  # noqa: E731
        return td.kernels.map_kernels(add, params, kernels), mask_vars

    return td.MaskTransform(td.base.no_vars, apply)


range_of_unit = Criterion(lambda w, _: w, lambda w: jnp.ptp(w, axis=-2, keepdims=True))
"""Ranking of units by the range of their weights."""
