"""The axes of a kernel: stacked layers, fan-in and units."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped


class Kernel(NamedTuple):
    """A kernel, read as matrices `[*stack, fan_in, units]`."""

    shape: tuple[int, ...]  # of the leaf
    stacked: tuple[int, ...] = ()  # axes along which independent kernels lie, each ranked separately
    units: tuple[int, ...] = (-1,)  # axes that together count the output units; all others are the fan-in

    @property
    def order(self) -> tuple[int, ...]:
        """All axes: stacked, fan-in, units."""
        ends = [tuple(axis % len(self.shape) for axis in axes) for axes in (self.stacked, self.units)]
        inner = tuple(axis for axis in range(len(self.shape)) if axis not in ends[0] + ends[1])
        return ends[0] + inner + ends[1]

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """`(*stack, fan_in, units)`."""
        sizes = [self.shape[axis] for axis in self.order]
        first, last = len(self.stacked), len(sizes) - len(self.units)
        return (*sizes[:first], math.prod(sizes[first:last]), math.prod(sizes[last:]))

    def as_matrix(self, kernel: Shaped[Array, "..."]) -> Shaped[Array, "*stack fan_in units"]:
        """The kernel as matrices."""
        if self.order != tuple(range(len(self.shape))):
            kernel = jnp.transpose(kernel, self.order)
        return kernel.reshape(self.matrix_shape)

    def as_kernel(self, matrix: Shaped[Array, "*stack fan_in units"]) -> Shaped[Array, "..."]:
        """The inverse of `as_matrix`."""
        order = self.order
        kernel = matrix.reshape([self.shape[axis] for axis in order])
        return kernel if order == tuple(range(len(order))) else jnp.transpose(kernel, np.argsort(order).tolist())

    def __str__(self) -> str:
        """As "12 x [768 -> 3072]"."""
        *stack, fan_in, units = self.matrix_shape
        inner = f"{fan_in} -> {units}"
        return f"{'x'.join(map(str, stack))} x [{inner}]" if stack else inner
