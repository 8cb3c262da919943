"""The BatchNorm that every network here has."""

from functools import partial
from typing import Any

import flax.linen as nn


def batch_norm(network: Any, train: bool) -> Any:
    """A BatchNorm with the constants that a network's attributes give.

    Args:
      network: has `batch_norm_momentum`, `batch_norm_epsilon` and `dtype`.
      train: whether to use the batch's own statistics.

    Returns:
      A constructor of `nn.BatchNorm`.
    """
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=network.batch_norm_momentum,
        epsilon=network.batch_norm_epsilon,
        dtype=network.dtype,
    )
