"""Functions as flat lists of primitives, which every format can express."""

from collections.abc import Callable
from typing import Any

import jax

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
        program = trace(function, abstract(params), abstract(inputs), plain=True)
        known = {**program.numbers, **dict(zip(program.leaves, jax.tree.leaves(params), strict=True))}
        known |= dict(zip(program.inputs, jax.tree.leaves(inputs), strict=True))
        for equation in program.equations:
            found = equation.bind(*[known[value] for value in equation.inputs], **equation.params)
            known.update(zip(equation.outputs, found if isinstance(found, list | tuple) else [found], strict=True))
        return jax.tree.unflatten(program.out_tree, [known[value] for value in program.outputs])

    return apply
