"""The networks, plain `flax.linen` modules, and the one table that names them in configs."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from td.errors import UserError, lookup, nearest
from td.models.large_resnet import large_resnet
from td.models.mlp import MLP
from td.models.resnet import ResNet, wide_resnet
from td.models.transformer import Transformer
from td.models.vgg import VGG

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "resnet": ResNet,
    "wide_resnet": wide_resnet,
    "vgg": VGG,
    "large_resnet": large_resnet,
    "transformer": Transformer,
}

__all__ = ["MLP", "MODELS", "VGG", "ResNet", "Transformer", "build", "large_resnet", "wide_resnet"]


def build(settings: Mapping[str, Any], num_classes: int) -> Any:
    """Make the network that a config names.

    Args:
      settings: `name`, a key of `MODELS`, and the network's own arguments.
      num_classes: number of outputs, from the data.

    Returns:
      A `flax.linen.Module`.

    Raises:
      UserError: unknown name, or an argument that the network does not have.

    Example:
      >>> build({"name": "mlp", "hidden_units": 3}, num_classes=2).hidden_units
      3
    """
    attributes = {name: value for name, value in settings.items() if name != "name"}
    module = lookup(MODELS, settings["name"], "model")
    taken = set(inspect.signature(module).parameters) - {"parent", "name", "num_classes"}
    for name in attributes:
        if name not in taken:
            raise UserError(f"model {settings['name']!r} has no {name!r}: {nearest(name, taken)}")
    return module(num_classes=num_classes, **attributes)
