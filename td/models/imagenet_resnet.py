"""The residual networks of ImageNet: ResNet-18, -26, -34, -50, -101."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from td.errors import UserError
from td.models.layers import batch_norm, convolution


class Block(nn.Module):
    """Convolutions with norms, two of 3x3 or 1x1-3x3-1x1, added to the shortcut and then rectified."""

    channels: int
    stride: int
    bottleneck: bool
    norm: Any
    conv: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        outputs = self.channels * (4 if self.bottleneck else 1)
        # (channels, side, stride): the stride sits on the first 3x3 convolution.
        layers = [(self.channels, 3, self.stride), (outputs, 3, 1)]
        if self.bottleneck:
            layers = [(self.channels, 1, 1), (self.channels, 3, self.stride), (outputs, 1, 1)]
        hidden = inputs
        for number, (channels, side, stride) in enumerate(layers, start=1):
            hidden = self.conv(channels, (side, side), stride, padding=side // 2, name=f"conv{number}")(hidden)
            hidden = self.norm(name=f"norm{number}")(hidden)
            hidden = nn.relu(hidden) if number < len(layers) else hidden
        shortcut = inputs
        if self.stride != 1 or inputs.shape[-1] != outputs:
            shortcut = self.conv(outputs, (1, 1), self.stride, padding=0, name="shortcut")(inputs)
            shortcut = self.norm(name="shortcut_norm")(shortcut)
        return nn.relu(hidden + shortcut)


class LargeResNet(nn.Module):
    """ResNet for large images: stem, four stages of blocks, global average pooling, logits.

    Source: He et al. 2016 (deep residual learning), with the stride on the 3x3 convolution.
    """

    num_classes: int
    stage_sizes: Sequence[int] = (3, 4, 23, 3)  # blocks per stage
    bottleneck: bool = True
    width: int = 64  # channels of the stem and of the first stage
    small_images: bool = False  # a 3x3 stem of stride 1 without pooling, as for CIFAR
    batch_norm_momentum: float = 0.9  # fraction of the running statistics kept per step
    batch_norm_epsilon: float = 1e-5
    dtype: str = "float32"  # of the computation; parameters and statistics stay float32

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Array:
        conv = convolution(self)
        norm = batch_norm(self, train)
        side, stride = (3, 1) if self.small_images else (7, 2)
        hidden = conv(self.width, (side, side), stride, padding=side // 2, name="stem")(images)
        hidden = nn.relu(norm(name="stem_norm")(hidden))
        if not self.small_images:
            hidden = nn.max_pool(hidden, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, size in enumerate(self.stage_sizes):
            for block in range(size):
                first = 2 if block == 0 and stage > 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                hidden = Block(self.width * 2**stage, first, self.bottleneck, norm, conv, name=name)(hidden)
        hidden = hidden.mean(axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(hidden).astype(jnp.float32)


DEPTHS = {
    10: ((1, 1, 1, 1), False),  # for quick tries
    18: ((2, 2, 2, 2), False),
    26: ((2, 2, 2, 2), True),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


def large_resnet(
    num_classes: int,
    depth: int = 101,
    width: int = 64,
    small_images: bool = False,
    batch_norm_momentum: float = 0.9,
    batch_norm_epsilon: float = 1e-5,
    dtype: str = "float32",
) -> LargeResNet:
    """ResNet of a well-known depth. The paper's "ResNet-102" is the one called 101 everywhere else."""
    if depth not in DEPTHS:
        raise UserError(f"model.depth={depth} is not known: give one of {', '.join(map(str, DEPTHS))}")
    sizes, bottleneck = DEPTHS[depth]
    return LargeResNet(
        num_classes, sizes, bottleneck, width, small_images, batch_norm_momentum, batch_norm_epsilon, dtype
    )
