"""Interception of the linear layers of a Flax linen network, without changes to the model."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from td.errors import UserError

OnCall = Callable[[str, Any, Array, Callable[[Array], Array], int], Array]
"""`(path, module, inputs, the layer's own function of the inputs, calls of this layer so far) -> outputs`."""

_INNER = "inner_linear"


def linear(module: Any, kernel: Array, inputs: Array) -> Array:
    """Compute the output of a Dense or Conv layer with another kernel and no bias."""
    bare = module.clone(use_bias=False, parent=None, name=_INNER)
    return bare.apply({"params": {"kernel": kernel}}, inputs)


@contextmanager
def intercept(on_call: OnCall, kernels: Collection[str]) -> Iterator[None]:
    """Route every call of a Dense or Conv layer whose kernel is chosen through a function inside the block."""
    import flax.linen as nn  # the library itself needs JAX only

    calls = dict.fromkeys(kernels, 0)

    def interceptor(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        path = "/".join((*module.path, "kernel"))
        linear_call = context.method_name == "__call__" and isinstance(module, nn.Dense | nn.Conv)
        if not linear_call or path not in calls or module.name == _INNER:
            return next_function(*args, **kwargs)
        calls[path] += 1
        inputs = args[0] if args else kwargs["inputs"]
        return on_call(path, module, jnp.asarray(inputs), next_function, calls[path] - 1)

    with nn.intercept_methods(interceptor):
        yield
    missed = [path for path, count in calls.items() if not count]
    if missed:
        raise UserError(
            f"kernel {missed[0]!r} was not seen in a Dense or Conv layer of Flax linen: leave it out of `kernels`, "
            "or use the form of the method that needs no access to layers"
        )
