"""Pre-activation residual networks for small images."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from td.errors import UserError
from td.models.layers import batch_norm, convolution


class ResidualBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice; the shortcut is a 1x1 projection of the first activation where asked for."""

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

    The defaults are the paper's "ResNet-32", which is wider than He's: 1,857,498 parameters. `widths=(16, 32, 64)`
    is He's width: 468,890. Each stage after the first halves the image; the first block of each stage has a
    projection shortcut. Convolutions carry no bias. Kernels start as truncated normals of variance 1/fan_in.

    Attributes:
      num_classes: number of outputs.
      stage_sizes: residual blocks per stage.
      widths: channels per stage.
      stem_width: channels of the first convolution.
      stem_kernel: its side, 7 in the paper's later code, 3 in its first release.
      stem_stride: 2 halves the image at once, which costs a quarter.
      batch_norm_momentum: share of the running statistics kept per step.
      batch_norm_epsilon: added to the variance.
      dropout_rate: of ordinary dropout of activations between the convolutions of a block, rng "dropout"; 0 for none.
      dtype: of the computation; parameters and statistics stay float32.

    Source: He et al. 2016 (identity mappings); widths and constants: Gomez et al. 2019 and its code.
    """

    num_classes: int
    stage_sizes: Sequence[int] = (5, 5, 5)
    widths: Sequence[int] = (32, 64, 128)
    stem_width: int = 16
    stem_kernel: int = 7
    stem_stride: int = 1
    batch_norm_momentum: float = 0.997
    batch_norm_epsilon: float = 1e-3
    dropout_rate: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Array:
        conv = convolution(self)
        norm = batch_norm(self, train)
        stem_sides = (self.stem_kernel, self.stem_kernel)
        hidden = conv(self.stem_width, stem_sides, self.stem_stride, padding=self.stem_kernel // 2, name="stem")(images)
        for stage, (size, channels) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for block in range(size):
                first = block == 0
                stride = 2 if first and stage > 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                hidden = ResidualBlock(channels, stride, first, self.dropout_rate, norm, conv, name=name)(hidden, train)
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
        raise UserError(f"model.depth={depth} is not a depth of a WRN: give 6 n + 4, as 16, 22, 28 or 40")
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
