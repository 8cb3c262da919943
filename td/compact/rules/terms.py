"""Terms of operations that sum: live or constant, forced, absorbed by a bias, changed by padding."""

from typing import Any

import numpy as np
from jax.errors import InconclusiveDimensionOperation
from jaxtyping import Array

from td.compact.rules.base import AxisIndices, Contraction, Operation, Request
from td.compact.values import Value
from td.program.indices import Broadcastable, KeptIndices, Shape, take_kept


def may_differ_from_zero(value: Value) -> Broadcastable:
    """Flags of entries that are live or a constant other than zero."""
    return value.live | (value.constant != 0)


def padded(op: Operation) -> bool:
    """Test for zeros around or between the entries of a convolution or pooling, for any padding of a dynamic axis."""
    if op.name == "pad":
        config = zip(op.dynamic_out_axes, op.params["padding_config"], strict=True)
        return any(dynamic and tuple(widths) != (0, 0, 0) for dynamic, widths in config)
    dilated = op.params.get("lhs_dilation", ())
    return any(map(_positive, np.ravel(op.params["padding"]))) or any(d > 1 for d in dilated)


def _positive(size: Any) -> bool:
    """Test for a size that is, or for symbolic sizes may be, above zero."""
    try:
        return bool(size > 0)
    except InconclusiveDimensionOperation:
        return True


def with_forced(kept: KeptIndices, forced: AxisIndices, shape: Shape) -> KeptIndices:
    """Kept indices together with forced ones."""
    lines = [
        line if line is None or axis not in forced else np.union1d(line, forced[axis]).astype(int)
        for axis, line in enumerate(kept)
    ]
    return tuple(None if line is None or len(line) == n else line for line, n in zip(lines, shape, strict=True))


def absorbing(used: KeptIndices, bias: Broadcastable, computed: KeptIndices | None) -> Contraction:
    """A contraction whose other terms are a bias of the computed indices."""
    bias = take_kept(bias, computed)
    return Contraction(used, {"bias": bias} if bias.any() else {})


def add_bias(output: Array, request: Request) -> Array:
    """Add the absorbed bias, if any."""
    bias = request.constant("bias")
    return output if bias is None else output + bias.astype(output.dtype)
