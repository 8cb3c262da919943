"""Sparse variational dropout: Gaussian noise of trained variance on every weight; noisy weights are removed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from td import _linen, _tree, criteria
from td._entries import draw_entries
from td.base import MaskTransform, MaskVars, Params, RandomKey, Step, StepCount, carried
from td.errors import check_at_least, check_choice
from td.kernels import KERNELS, Patterns, find_kernels, kernel_keys, map_kernels, matrices

LIMIT = 8.0
"""`log_a` is clipped to [-8, 8]."""

K1, K2, K3 = 0.63576, 1.8732, 1.48695
"""Constants of the approximate KL divergence."""


def log_alpha(
    matrix: Float[Array, "*stack fan_in units"], log_sigma2: Float[Array, "*stack rows units"]
) -> Float[Array, "*stack fan_in units"]:
    """Log of the noise's variance over the squared weight: `clip(log_sigma2 - log(w^2 + 1e-8), -8, 8)`."""
    squares = jnp.square(matrix.astype(jnp.float32))
    return jnp.clip(log_sigma2 - jnp.log(squares + 1e-8), -LIMIT, LIMIT)


def kl_divergence(log_a: Float[Array, "..."]) -> Float[Array, ""]:
    """Approximate the KL divergence: `-sum[k1 sigmoid(k2 + k3 log_a) - log(1 + exp(-log_a)) / 2 - k1]`."""
    return -jnp.sum(K1 * jax.nn.sigmoid(K2 + K3 * log_a) - 0.5 * jnp.log1p(jnp.exp(-log_a)) - K1)


def variational(
    granularity: str = "weight",
    cost: float = 0.01,
    warmup: StepCount = 50_000,
    examples: int = 50_000,
    threshold: float = 3.0,
    local: bool = False,
    *,
    kernels: Patterns = KERNELS,
) -> MaskTransform:
    """Sparse variational dropout, which replaces weight decay.

    In training a weight is Gaussian with mean `w` and variance `exp(log_a) w^2`. The plain form draws one noise per
    weight and step, and works in any framework. The *local* form draws the layer's outputs instead: mean `x * w` and
    variance `x^2 * (exp(log_a) w^2)`, independently for every example and position. `cost / examples * KL`, rising
    linearly over the warm-up, is added to the loss. Evaluation removes weights with `log_a >= threshold`.

    Args:
      granularity: a variance per "weight", or one per "unit".
      cost: factor of the KL divergence.
      warmup: steps over which the factor rises; 0 for none.
      examples: N, training examples.
      threshold: the `log_a` from which a weight is removed at evaluation.
      local: local reparameterisation, for Dense and Conv layers of Flax linen that are not under `nn.scan`. Call the
        model inside `transform.context(...)`; outside there is no noise.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` whose `gates` are `{path: log_sigma2}`, float32, starting at -10. `scores` are `8 - log_a`, the
      mean over the column for units.

    Raises:
      UserError: a number out of range or an unknown word; in `context`, a kernel that is in no Dense or Conv layer.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform, params = td.masks.variational(kernels="w"), {"w": jnp.array([[1.0, 1e-3]])}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> transform.apply(params, mask_vars, key=None, step=0)[0]["w"].tolist()  # log_a = -10 and 3.8
      [[1.0, 0.0]]

    Source: Molchanov et al. 2017; local reparameterisation: Kingma et al. 2015; constants: Gomez et al. 2019's code.
    """
    check_choice("granularity", granularity, criteria.OF_KERNELS)
    check_at_least("cost", cost)
    check_at_least("warmup", warmup)
    check_at_least("examples", examples, 1)

    def init(key: RandomKey, params: Params) -> MaskVars:
        start = lambda key, shape, dtype: jnp.full(shape, -10.0, dtype)  # noqa: E731
        return MaskVars(gates=draw_entries(start, key, params, granularity, kernels))

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        gates = carried(mask_vars.gates)
        keys = {} if key is None or local else kernel_keys(key, step, gates)

        def perturb(path: str, matrix: Array) -> Array:
            log_a = log_alpha(matrix, gates[path])
            if key is None:
                return jnp.where(log_a < threshold, matrix, jnp.zeros_like(matrix))
            noise = jax.random.normal(keys[path], matrix.shape, jnp.float32)
            return matrix * (1 + jnp.exp(0.5 * log_a) * noise).astype(matrix.dtype)

        if key is not None and local:
            return params, mask_vars
        return map_kernels(perturb, params, kernels), mask_vars

    def penalty(params: Params, gates: dict[str, Array], step: Step) -> Array:
        chosen = matrices(params, kernels)
        terms = [kl_divergence(log_alpha(matrix, gates[path])) for path, matrix in chosen.items()]
        risen = jnp.minimum(jnp.asarray(step, jnp.float32) / warmup, 1.0) if warmup else jnp.float32(1.0)
        return jnp.float32(cost / examples) * risen * sum(terms, start=jnp.zeros((), jnp.float32))

    def scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        chosen = matrices(params, kernels)
        kept = {path: LIMIT - log_alpha(matrix, mask_vars.gates[path]) for path, matrix in chosen.items()}
        if granularity == "weight":
            return kept
        return {path: jnp.mean(score, axis=-2, keepdims=True) for path, score in kept.items()}

    def context(
        params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step
    ) -> AbstractContextManager[Any]:
        if key is None or not local:
            return nullcontext()
        leaves, chosen = _tree.named_leaves(params), find_kernels(params, kernels)
        keys = kernel_keys(key, step, chosen)

        def noisy(path: str, module: Any, inputs: Array, call: Callable[[Array], Array], count: int) -> Array:
            kernel, view = leaves[path].astype(jnp.float32), chosen[path]
            log_a = view.as_kernel(log_alpha(view.as_matrix(kernel), mask_vars.gates[path]))
            variance = _linen.linear(module, jnp.exp(log_a) * jnp.square(kernel), jnp.square(inputs))
            mean = call(inputs)
            draw = jax.random.fold_in(keys[path], count)
            # Rounding may give a negative variance; 1e-8 keeps the derivative of the root finite.
            deviation = jnp.sqrt(jnp.maximum(variance, 0.0) + 1e-8).astype(mean.dtype)
            return mean + deviation * jax.random.normal(draw, mean.shape, mean.dtype)

        return _linen.intercept(noisy, chosen)

    return MaskTransform(init, apply, penalty, scores, context=context, kernels=kernels)
