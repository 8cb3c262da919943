"""What convolutions and products have in common: counts of operations, axes of units."""

import math
from collections.abc import Sequence

from td.compact.rule import Operation
from td.compact.rules_conv import channel_axes, group_count
from td.compact.rules_dot import dimensions
from td.compact.values import Shape


def flops(operation: Operation, shapes: Sequence[Shape], shape: Shape) -> int:
    """Multiplications and additions of a convolution or product with operands of these sizes."""
    if operation.name == "dot_general":
        return 2 * math.prod(shape) * math.prod(shapes[0][a] for a in dimensions(operation)[2][0])
    _, _, _, outer = channel_axes(operation)
    return 2 * math.prod(shape) * math.prod(n for a, n in enumerate(shapes[1]) if a != outer)


def unit_axes(operation: Operation) -> tuple[int, int, int, int] | None:
    """The axis of units of the output and of the kernel, of inputs of the kernel and of the input; None if unclear."""
    if operation.name == "conv_general_dilated":
        channels, axis, inner, outer = channel_axes(operation)
        return (axis, outer, inner, channels) if group_count(operation) == 1 else None
    if operation.name != "dot_general":
        return None
    batch, free, contracted = dimensions(operation)
    if len(contracted[0]) != 1 or len(free[1]) != 1 or batch[0]:
        return None
    return len(operation.shape) - 1, free[1][0], contracted[1][0], contracted[0][0]
