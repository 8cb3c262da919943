"""Functions as flat lists of primitives, which every format can express, and what they cost."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax

from td.compact.analyse import operation
from td.compact.linear import flops as flops_of
from td.compact.trace import abstract, trace


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as a flat list of primitives: a choice by platform is its default, plain convolutions.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> program = jax.make_jaxpr(inlined(lambda params, x: jax.jit(jnp.multiply)(params, x)))(2.0, 3.0)
      >>> [equation.primitive.name for equation in program.eqns]
      ['mul']
    """

    def apply(params: Any, *inputs: Any) -> Any:
        program = trace(function, abstract(params), abstract(inputs), choices=False)
        known = {**program.numbers, **dict(zip(program.leaves, jax.tree.leaves(params), strict=True))}
        known |= dict(zip(program.inputs, jax.tree.leaves(inputs), strict=True))
        for equation in program.equations:
            found = equation.bind(*[known[value] for value in equation.inputs], **equation.params)
            known.update(zip(equation.outputs, found if isinstance(found, list | tuple) else [found], strict=True))
        return jax.tree.unflatten(program.out_tree, [known[value] for value in program.outputs])

    return apply


def count_flops(function: Callable[..., Any], params: Any, *inputs: Any) -> int:
    """Those of the convolutions and products, by shapes alone.

    Example:
      >>> import jax.numpy as jnp
      >>> count_flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
      60
    """
    program = trace(function, abstract(params), abstract(inputs))
    free: dict[int, tuple[bool, ...]] = defaultdict(tuple)
    operations = [
        operation(program, equation, free)
        for equation in program.equations
        if equation.name in ("conv_general_dilated", "dot_general")
    ]
    return sum(flops_of(here, here.shapes, here.shape) for here in operations)
