"""Pre-activation residual networks for small images."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from td.errors import UserError
from td.models.layers import batch_norm, convolution


class ResidualBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice; a 1x1 projection of the first activation may be the shortcut."""

    channels: int
    stride: int
    project: bool
    dropout_rate: float
    norm: Any
    conv: Any

    @nn.compact
    def __call__(self, inputs: Array, train: bool) -> Array:
        hidden = nn.relu(self.norm(name="norm1")(inputs))
        shortcut = inputs
        if self.project:
            shortcut = self.conv(self.channels, (1, 1), self.stride, padding=0, name="shortcut")(hidden)
        hidden = self.conv(self.channels, (3, 3), self.stride, padding=1, name="conv1")(hidden)
        hidden = nn.relu(self.norm(name="norm2")(hidden))
        if self.dropout_rate:
            hidden = nn.Dropout(self.dropout_rate, deterministic=not train)(hidden)
        hidden = self.conv(self.channels, (3, 3), 1, padding=1, name="conv2")(hidden)
        return shortcut + hidden


class ResNet(nn.Module):
    """A pre-activation ResNet: stem, stages of residual blocks, norm, global average pooling, logits.

    The defaults are the paper's "ResNet-32", which is wider than He's: 1,857,498 parameters; He's widths (16, 32, 64)
    have 468,890. Each stage after the first halves the image; its first block has a projection shortcut.
    Convolutions have no bias. Kernels are initialised as truncated normals of variance 1/fan_in.

    Source: He et al. 2016 (identity mappings); widths and constants: Gomez et al. 2019 and its code.
    """

    num_classes: int
    stage_sizes: Sequence[int] = (5, 5, 5)  # residual blocks per stage
    widths: Sequence[int] = (32, 64, 128)  # channels per stage
    stem_width: int = 16  # channels of the first convolution
    stem_kernel: int = 7  # its side; 3 in the first release of the paper's code
    stem_stride: int = 1  # 2 halves the image at once, at a quarter of the cost
    batch_norm_momentum: float = 0.997  # fraction of the running statistics kept per step
    batch_norm_epsilon: float = 1e-3
    dropout_rate: float = 0.0  # of activations between the convolutions of a block, rng "dropout"
    dtype: str = "float32"  # of the computation; parameters and statistics stay float32

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Array:
        conv = convolution(self)
        norm = batch_norm(self, train)
        side = self.stem_kernel
        hidden = conv(self.stem_width, (side, side), self.stem_stride, padding=side // 2, name="stem")(images)
        for stage, (size, channels) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for block in range(size):
                stride, name = 2 if block == 0 and stage > 0 else 1, f"stage{stage + 1}_block{block + 1}"
                layer = ResidualBlock(channels, stride, block == 0, self.dropout_rate, norm, conv, name=name)
                hidden = layer(hidden, train)
        hidden = nn.relu(norm(name="norm")(hidden)).mean(axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(hidden).astype(jnp.float32)


def wide_resnet(
    num_classes: int,
    depth: int = 28,
    width: int = 10,
    dropout_rate: float = 0.0,
    batch_norm_momentum: float = 0.9,
    batch_norm_epsilon: float = 1e-5,
    dtype: str = "float32",
) -> ResNet:
    """WRN-depth-width: a `ResNet` of `(depth - 4) / 6` blocks a stage and `width` times 16, 32, 64 channels.

    Source: Zagoruyko and Komodakis 2016.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise UserError(f"model.depth={depth} is not a depth of a WRN: give 6 n + 4, for example 28")
    return ResNet(
        num_classes,
        stage_sizes=(blocks,) * 3,
        widths=(16 * width, 32 * width, 64 * width),
        stem_kernel=3,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        dropout_rate=dropout_rate,
        dtype=dtype,
    )
