"""3x3 convolutions of maps of at most 2x2, on which XLA:CPU takes twenty times as long as on larger ones."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from td.compact.values import Shape

SPECS = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
"""Of NHWC, HWIO, NHWC."""


def patches_product(inputs: Array, kernel: Array) -> Array:
    """A 3x3 convolution, padded by one, as one product of matrices, patches times kernel."""
    _, height, width, channels = inputs.shape
    padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(9 * channels, -1)


def covers(settings: Mapping[str, Any], inputs: Shape) -> bool:
    """Whether a convolution of inputs of this shape is a padded 3x3 of a small map."""
    return (
        tuple(settings["dimension_numbers"]) == SPECS
        and max(inputs[1:3]) <= 2
        and tuple(settings["padding"]) == ((1, 1), (1, 1))
        and all(set(settings[name]) == {1} for name in ("window_strides", "lhs_dilation", "rhs_dilation"))
        and settings["feature_group_count"] == settings["batch_group_count"] == 1
    )


def by_platform(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The convolution as a product on CPUs, as it was elsewhere."""

    def bind(inputs: Array, kernel: Array, **settings: Any) -> Any:
        default = lambda inputs, kernel: plain(inputs, kernel, **settings)  # noqa: E731
        return lax.platform_dependent(inputs, kernel, cpu=patches_product, default=default)

    return bind
