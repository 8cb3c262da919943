"""Networks for images: a dense one, VGG-16 with BatchNorm, and residual ones for small images and for ImageNet."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from td.errors import UserError
from td.models.layers import batch_norm, convolution


class MLP(nn.Module):
    """Flatten, one hidden layer of ReLU units (10: Gomez et al. 2019, section 4), logits."""

    num_classes: int
    hidden_units: int = 10  # width of the hidden layer

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Array:
        del train
        flat = images.reshape(images.shape[0], -1)
        hidden = nn.relu(nn.Dense(self.hidden_units, name="hidden")(flat))
        return nn.Dense(self.num_classes, name="logits")(hidden).astype(jnp.float32)


class VGG(nn.Module):
    """VGG: stages of 3x3 convolutions with max pooling after each, fully connected layers, logits.

    Convolutions and fully connected layers have no bias and are followed by BatchNorm and ReLU. The defaults are
    VGG-16 with two layers of 4,096: 34,019,364 parameters for 100 classes of 32x32 images.

    Source: Simonyan and Zisserman 2015, configuration D; norms and widths: Gomez et al. 2019 and its code.
    """

    num_classes: int
    stages: Sequence[Sequence[int]] = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)  # channels
    hidden_units: Sequence[int] = (4096, 4096)  # of the fully connected layers
    batch_norm_momentum: float = 0.997  # fraction of the running statistics kept per step
    batch_norm_epsilon: float = 1e-3
    dtype: str = "float32"  # of the computation; parameters and statistics stay float32

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Array:
        norm = batch_norm(self, train)
        hidden = images
        for stage, widths in enumerate(self.stages, start=1):
            for number, channels in enumerate(widths, start=1):
                name = f"stage{stage}_conv{number}"
                conv = "stem" if (stage, number) == (1, 1) else name
                hidden = convolution(self)(channels, (3, 3), padding=1, name=conv)(hidden)
                hidden = nn.relu(norm(name=f"{name}_norm")(hidden))
            hidden = nn.max_pool(hidden, (2, 2), (2, 2))
        hidden = hidden.reshape(images.shape[0], -1)
        for number, units in enumerate(self.hidden_units, start=1):
            hidden = nn.Dense(units, use_bias=False, dtype=self.dtype, name=f"dense{number}")(hidden)
            hidden = nn.relu(norm(name=f"dense{number}_norm")(hidden))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(hidden).astype(jnp.float32)


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
    """WRN-depth-width (Zagoruyko and Komodakis 2016): `width` times 16, 32 and 64 channels."""
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


DEPTHS = {
    10: ((1, 1, 1, 1), False),  # for quick tries
    18: ((2, 2, 2, 2), False),
    26: ((2, 2, 2, 2), True),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}
"""Depth -> blocks per stage, and whether they are bottlenecks."""


class LargeResNet(nn.Module):
    """ResNet for large images (He et al. 2016, deep residual learning), with the stride on the 3x3 convolution."""

    num_classes: int
    depth: int = 101  # the paper's "ResNet-102" is the one called 101 everywhere else
    width: int = 64  # channels of the stem and of the first stage
    small_images: bool = False  # a 3x3 stem of stride 1 without pooling, as for CIFAR
    batch_norm_momentum: float = 0.9  # fraction of the running statistics kept per step
    batch_norm_epsilon: float = 1e-5
    dtype: str = "float32"  # of the computation; parameters and statistics stay float32

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise UserError(f"model.depth={self.depth} is not known: give one of {', '.join(map(str, DEPTHS))}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Array:
        conv = convolution(self)
        norm = batch_norm(self, train)
        sizes, bottleneck = DEPTHS[self.depth]
        side, stride = (3, 1) if self.small_images else (7, 2)
        hidden = conv(self.width, (side, side), stride, padding=side // 2, name="stem")(images)
        hidden = nn.relu(norm(name="stem_norm")(hidden))
        if not self.small_images:
            hidden = nn.max_pool(hidden, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, size in enumerate(sizes):
            for block in range(size):
                first = 2 if block == 0 and stage > 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                hidden = Block(self.width * 2**stage, first, bottleneck, norm, conv, name=name)(hidden)
        hidden = hidden.mean(axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(hidden).astype(jnp.float32)
