"""`td.reconstruct`."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from td.base import Params
from td.errors import UserError
from td.program.trace import abstract
from td.reconstruct.run import Reconstructor


def reconstruct(
    apply_fn: Callable[..., Any],
    params: Params,
    mask: Params,
    batches: Iterable[Any],
    *,
    reference: Params | None = None,
    ridge: float = 1e-3,
) -> Params:
    """Repair a pruned network layer by layer, by least squares on the kept weights, without training.

    In the order of execution, every kernel that lost entries or whose inputs have changed gets the weights that
    reproduce the outputs of the reference network best, given the inputs in the network as repaired so far:

        min ||X w - Y||^2 + ridge * mean(diag X'X) * ||w - w_pruned||^2    for every unit, over its kept weights

    A bias that is added directly to the product is solved with it, as the weight of an input of ones. Kernels that
    are used twice or are computed from several leaves, embeddings, and what lies inside of `cond` and `while_loop`
    stay as they are. Memory holds the activations between two layers for all batches, and one Gram matrix.

    Args:
      apply_fn: `(params, *inputs) -> outputs`, at inference.
      params: the network before pruning, any pytree.
      mask: a tree of bool like `params`, True = kept, as `td.prune_mask` makes it.
      batches: inputs of `apply_fn`, an array or a tuple of several, all of one shape; training data.
      reference: the network whose outputs are reproduced, like `params`; default: `params`. For a method that trains
        a network to live without its targets it is the network without them.
      ridge: weight of the distance to the pruned weights.

    Returns:
      The pruned parameters with other kept weights; unchanged if that brings the outputs no closer to the
      reference's, by the mean squared error on `batches`.

    Raises:
      UserError: there is no batch, or a mask has another shape than its leaf.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> network = lambda p, x: x @ p["w"]
      >>> x = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> params, mask = {"w": jnp.array([[1.0], [2.0]])}, {"w": jnp.array([[False], [True]])}
      >>> td.reconstruct(network, params, mask, [x], ridge=0.0)["w"].round(4).tolist()
      [[0.0], [3.0]]

    Source: Hassibi and Stork 1993 (Optimal Brain Surgeon) and its layer-wise form, Dong et al. 2017 (L-OBS).
    """
    given = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    if not given:
        raise UserError("nothing to reconstruct on: give at least one batch")
    if len(kinds := {str(abstract(batch)) for batch in given}) > 1:
        raise UserError(f"batches differ in shape or dtype: {' and '.join(sorted(kinds))}; leave out the last one")
    structure: Any = jax.tree.structure(params)
    for name, tree in {"mask": mask, "reference": params if reference is None else reference}.items():
        if jax.tree.structure(tree) != structure:
            raise UserError(f"the {name} has another structure than params: give a tree like them")
    return Reconstructor(apply_fn, params, given[0])(params, mask, given, reference, ridge)
