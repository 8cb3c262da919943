"""The dense toy network of the paper's Table 1: one hidden layer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class MLP(nn.Module):
    """Flatten, one hidden layer of ReLU units, logits.

    Source: Gomez et al. 2019, section 4 (10 hidden units).
    """

    num_classes: int
    hidden_units: int = 10  # width of the hidden layer

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Array:
        del train
        flat = images.reshape(images.shape[0], -1)
        hidden = nn.relu(nn.Dense(self.hidden_units, name="hidden")(flat))
        return nn.Dense(self.num_classes, name="logits")(hidden).astype(jnp.float32)
