"""`td.trace`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from td import _tree
from td.base import Params
from td.errors import check_choice
from td.program.trace import abstract
from td.structure.result import Structure, build
from td.structure.run import run_function


def trace(apply_fn: Callable[..., Any], params: Params, *example_inputs: Any, include: Sequence[str] = ()) -> Structure:
    """Read a network's structure from its function, by shapes alone and without a name.

    A leaf is a kernel where a product contracts it with something that depends on the inputs: contracted axes are its
    fan-in, free ones its units. Units that are added or multiplied, entry by entry, belong to one group.

    Args:
      apply_fn: `(params, *inputs) -> outputs`, at inference.
      params: any pytree of arrays or shapes, the one that masks will have.
      *example_inputs: arrays or `jax.ShapeDtypeStruct` objects.
      include: of "first" and "last", the kernels to mask besides those in between.

    Returns:
      A `Structure`: give it as `kernels` wherever patterns go, and print it.

    Raises:
      UserError: an unknown role.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> network = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"] + p["bias"]) @ p["c"]
      >>> shapes = {"a": (4, 8), "b": (8, 6), "bias": (6,), "c": (6, 3)}
      >>> params = {name: jnp.ones(shape) for name, shape in shapes.items()}
      >>> print(td.trace(network, params, jnp.ones((1, 4))))
      kernel  shape   fan-in -> units  role
      a       [4, 8]  4 -> 8           first, not masked
      b       [8, 6]  8 -> 6
      c       [6, 3]  6 -> 3           last, not masked
      <BLANKLINE>
      groups  rankings x width  made by  read by
      b       1 x 6             b        c
      <BLANKLINE>
      bias: a scale or an offset of a group
    """
    for role in include:
        check_choice("include", role, ("first", "last"))
    paths = _tree.paths(params)
    closed = jax.make_jaxpr(apply_fn)(abstract(params), *abstract(tuple(example_inputs)))
    return build(run_function(closed, len(paths)), paths, include)
