"""Measurements of the criteria that need data: gradients, their squares, norms of inputs, losses of removal."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td import _linen, _tree, criteria
from td._entries import draw_entries
from td.base import Params, RandomKey
from td.errors import UserError
from td.kernels import KERNELS, Patterns, every, find_kernels, matrices, select_kernels
from td.reconstruct.run import Reconstructor
from td.reconstruct.solve import removal_losses

Losses = Callable[[Params, Any], Array]
"""`(params, batch) -> [examples]`, one loss an example. Examples must not influence each other."""

Measured = dict[str, Array]

NO_BATCH = "no batch to measure on: give at least one"

DAMPING = 1e-2
"""The damping of a Gram matrix: a share of its mean diagonal that is added to the diagonal, as in SparseGPT."""


def _mean(measure: Callable[[Params, Any], Measured], params: Params, batches: Iterable[Any]) -> Measured:
    total, count = None, 0
    for batch in batches:
        found = measure(params, batch)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        count += 1
    if total is None:
        raise UserError(NO_BATCH)
    return {path: value / count for path, value in total.items()}


def _gradient(loss: Callable[[Params], Array], params: Params, kernels: Patterns) -> Measured:
    """Differentiate by the chosen kernels only: other leaves need not be differentiable."""
    found = jax.grad(lambda leaves: loss(_tree.replace_leaves(params, leaves)))(select_kernels(params, kernels))
    return {
        path: view.as_matrix(found[path]).astype(jnp.float32) for path, view in find_kernels(params, kernels).items()
    }


def gradient(losses: Losses, params: Params, batches: Iterable[Any], kernels: Patterns = KERNELS) -> Measured:
    """Compute the gradient of the mean loss.

    Args:
      losses: one loss an example.
      params: any pytree.
      batches: what `losses` takes, all of one size.
      kernels: which leaves, as in `td.kernels.find_kernels`.

    Returns:
      `{path: [*stack, fan_in, units]}`, float32.

    Raises:
      UserError: there is no batch, or a pattern matches nothing.

    Example:
      >>> losses = lambda params, x: x @ params["w"][:, 0]
      >>> gradient(losses, {"w": jnp.ones((2, 1))}, [jnp.array([[1.0, 0.0], [3.0, 4.0]])], "w")["w"].tolist()
      [[2.0], [2.0]]
    """
    measure = jax.jit(lambda params, batch: _gradient(lambda p: losses(p, batch).mean(), params, kernels))
    return _mean(measure, params, batches)


def squared_gradient(losses: Losses, params: Params, batches: Iterable[Any], kernels: Patterns = KERNELS) -> Measured:
    """The mean over examples of the squared gradient of each one's loss: the diagonal of the empirical Fisher matrix.

    Every example's gradient is in memory at once, so the memory is the batch size times that of the parameters.

    Args:
      losses: one loss an example.
      params: any pytree.
      batches: pytrees of arrays with the example as first axis, all of one size.
      kernels: which leaves, as in `td.kernels.find_kernels`.

    Returns:
      `{path: [*stack, fan_in, units]}`, float32.

    Raises:
      UserError: there is no batch, or a pattern matches nothing.

    Example:
      >>> losses = lambda params, x: x @ params["w"][:, 0]
      >>> squared_gradient(losses, {"w": jnp.ones((2, 1))}, [jnp.array([[1.0, 0.0], [3.0, 4.0]])], "w")["w"].tolist()
      [[5.0], [8.0]]
    """

    def of_example(params: Params, example: Any) -> Measured:
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        return _gradient(lambda p: losses(p, alone)[0], params, kernels)

    @jax.jit
    def measure(params: Params, batch: Any) -> Measured:
        each = jax.vmap(of_example, in_axes=(None, 0))(params, batch)
        return {path: jnp.mean(jnp.square(g), axis=0) for path, g in each.items()}

    return _mean(measure, params, batches)


def input_norm(
    forward: Callable[[Params, Any], Any],
    params: Params,
    batches: Iterable[Any],
    kernels: Patterns = KERNELS,
) -> Measured:
    """Compute the L2 norm of the inputs of each weight, over all examples and positions of a batch.

    The sum of `x^2` over all positions at which a weight is used is the gradient of `sum(layer(x^2))` by that weight,
    which holds for every stride, padding, dilation and grouping. Flax linen only, no layers under `nn.remat` or
    `nn.scan`.

    Args:
      forward: calls the model.
      params: its parameters.
      batches: what `forward` takes, all of one size.
      kernels: which leaves, as in `td.kernels.find_kernels`; of Dense and Conv layers.

    Returns:
      `{path: [*stack, fan_in, units]}`, float32: the root of the mean over batches of the sum of squares.

    Raises:
      UserError: there is no batch, or a kernel that is in no Dense or Conv layer.

    Example:
      >>> import flax.linen as nn
      >>> model, params = nn.Dense(1), {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}
      >>> forward = lambda params, x: model.apply({"params": params}, x)
      >>> input_norm(forward, params, [jnp.array([[3.0, 1.0], [4.0, 0.0]])], kernels=".*")["kernel"].tolist()
      [[5.0], [1.0]]
    """

    @jax.jit
    def measure(params: Params, batch: Any) -> Measured:
        chosen = find_kernels(params, kernels)
        found: Measured = {}

        def look(path: str, module: Any, inputs: Array, call: Callable[[Array], Array], count: int) -> Array:
            squares = jnp.square(inputs.astype(jnp.float32))
            total = jax.grad(lambda kernel: jnp.sum(_linen.linear(module, kernel, squares)))(
                jnp.zeros(chosen[path].shape, jnp.float32)
            )
            found[path] = found.get(path, jnp.float32(0.0)) + chosen[path].as_matrix(total)
            return call(inputs)

        with _linen.intercept(look, chosen):
            forward(params, batch)
        return found

    return {path: jnp.sqrt(total) for path, total in _mean(measure, params, batches).items()}


def removal_loss(
    forward: Callable[[Params, Any], Any],
    params: Params,
    batches: Iterable[Any],
    kernels: Patterns = KERNELS,
) -> Measured:
    """Compute what the removal of each weight adds to the squared error of its unit, once the others are updated.

    Weights of a unit go greedily, the one with the smallest `w^2 / [H^-1]_qq` first, in up to 64 blocks; H is the Gram
    matrix of the kernel's inputs, with a hundredth of its mean diagonal added. `td.reconstruct` computes the updates.
    Each unit takes `2 fan_in^3` operations.

    Args:
      forward: calls the model, any JAX function.
      params: its parameters.
      batches: what `forward` takes, all of one shape.
      kernels: which leaves, as in `td.kernels.find_kernels`.

    Returns:
      `{path: [*stack, fan_in, units]}`, float32.

    Raises:
      UserError: there is no batch, or a kernel that `td.reconstruct` leaves as it is.

    Example:
      >>> import td
      >>> forward, params = lambda params, x: x @ params["w"], {"w": jnp.array([[2.0], [1.0]])}
      >>> batch = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> removal_loss(forward, params, [batch], td.Kernels("w"))["w"].round().tolist()
      [[4.0], [9.0]]
    """
    given = [(batch,) for batch in batches]
    if not given:
        raise UserError(NO_BATCH)
    leaves, chosen = _tree.named_leaves(params), find_kernels(params, kernels)
    weights = np.concatenate([np.ravel(leaf) for leaf in leaves.values()])
    losses = np.full(weights.shape, np.nan, np.float32)
    for entries, gram in Reconstructor(forward, params, given[0]).grams(params, given):
        losses[entries] = removal_losses(gram, weights[entries].astype(float), DAMPING)
    found = _tree.split(jnp.asarray(losses), {path: np.shape(leaf) for path, leaf in leaves.items()})
    for path in chosen:
        if bool(jnp.isnan(found[path]).any()):
            raise UserError(f"kernel {path!r} is not the whole of a product of its own: leave it out of `kernels`")
    return {path: view.as_matrix(found[path]) for path, view in chosen.items()}


def importances(
    criterion: str,
    granularity: str,
    params: Params,
    *,
    losses: Losses | None = None,
    forward: Callable[[Params, Any], Any] | None = None,
    batches: Iterable[Any] = (),
    key: RandomKey | None = None,
    kernels: Patterns = KERNELS,
) -> Measured:
    """Score every kernel by a criterion, after measuring what it needs; takes only the arguments of that measurement.

    Args:
      criterion: a key of `td.criteria.CRITERIA`.
      granularity: "weight", "unit", "group" or "head".
      params: any pytree.
      losses: as in `gradient`.
      forward: as in `input_norm` and `removal_loss`.
      batches: a few batches of training data.
      key: for the random criterion.
      kernels: which leaves, as in `td.kernels.find_kernels`.

    Returns:
      `{path: importances}`, `[*stack, fan_in, units]` or `[*stack, 1, units]`, for `td.prune_mask(scores=...)`.

    Raises:
      UserError: an unknown word, an argument that the criterion needs and has not, no batch, or a kernel that cannot
        be measured.

    Example:
      >>> losses = lambda params, x: x @ params["w"][:, 0]
      >>> params, batches = {"w": jnp.array([[1.0], [-2.0]])}, [jnp.array([[1.0, 3.0]])]
      >>> importances("taylor", "weight", params, losses=losses, batches=batches, kernels="w")["w"].tolist()
      [[1.0], [6.0]]
    """
    needed = criteria.criterion_of(criterion).measures
    if granularity in criteria.COUPLED:  # ranked by the units of all kernels that make a group
        granularity, kernels = "unit", every(kernels)

    def given(name: str, value: Any) -> Any:
        if value is None:
            raise UserError(f"criterion {criterion!r} needs {name}: see td.importance.importances")
        return value

    measurements: dict[str, Callable[[], Measured]] = {
        "": dict,
        "draws": lambda: draw_entries(jax.random.uniform, given("key", key), params, granularity, kernels),
        "gradient": lambda: gradient(given("losses", losses), params, batches, kernels),
        "squared_gradient": lambda: squared_gradient(given("losses", losses), params, batches, kernels),
        "input_norm": lambda: input_norm(given("forward", forward), params, batches, kernels),
        "removal_loss": lambda: removal_loss(given("forward", forward), params, batches, kernels),
    }
    measured = measurements[needed]()
    return {
        path: criteria.importance(matrix, granularity, criterion, measured.get(path))
        for path, matrix in matrices(params, kernels).items()
    }
