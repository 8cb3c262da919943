"""Networks, plain `flax.linen` modules, and the table of their names in configs."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from td.errors import call_from_table
from td.models.images import MLP, VGG, LargeResNet, ResNet, wide_resnet
from td.models.transformer import Transformer

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "resnet": ResNet,
    "wide_resnet": wide_resnet,
    "vgg": VGG,
    "large_resnet": LargeResNet,
    "transformer": Transformer,
}

__all__ = ["MLP", "MODELS", "VGG", "LargeResNet", "ResNet", "Transformer", "build", "wide_resnet"]


def build(settings: Mapping[str, Any], num_classes: int) -> Any:
    """Build the network that a config names."""
    return call_from_table(MODELS, settings, "model", num_classes=num_classes)
