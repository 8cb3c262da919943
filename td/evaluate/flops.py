"""What a network costs in multiplications and additions."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from td.compact.analyse import operation
from td.compact.linear import flops as flops_of
from td.compact.sizes import Sizes
from td.compact.trace import abstract, trace


def count_flops(function: Callable[..., Any], params: Any, *inputs: Any) -> int:
    """Those of the convolutions and products, by shapes alone.

    Example:
      >>> import jax.numpy as jnp
      >>> count_flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
      60
    """
    program = trace(function, abstract(params), abstract(inputs))
    sizes = Sizes(defaultdict(tuple), frozenset(), ())
    operations = [
        operation(program, equation, sizes)
        for equation in program.equations
        if equation.name in ("conv_general_dilated", "dot_general")
    ]
    return sum(flops_of(here, here.shapes, here.shape) for here in operations)
