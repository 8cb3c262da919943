"""Networks without shortcuts: a dense one for digits, and VGG-16 with BatchNorm for small images."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

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
