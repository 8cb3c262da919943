"""L0 regularisation by hard-concrete gates."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from td import criteria
from td._entries import draw_entries
from td.base import MaskTransform, MaskVars, Params, RandomKey, Step, carried
from td.errors import UserError, check_at_least, check_choice
from td.kernels import KERNELS, Patterns, find_kernels, kernel_keys, map_kernels

TEMPERATURE, HIGH, LOW = 2 / 3, 1.1, -0.1
"""beta, zeta and gamma of the hard concrete distribution."""


def _stretch(s: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.clip(s * (HIGH - LOW) + LOW, 0.0, 1.0)


def sample_gate(key: RandomKey, location: Float[Array, "..."]) -> Float[Array, "..."]:
    """Draw gates: `z = clip(s (zeta - gamma) + gamma, 0, 1)`, `s = sigmoid((log u - log(1 - u) + location) / beta)`."""
    return _stretch(jax.nn.sigmoid((jax.random.logistic(key, location.shape, location.dtype) + location) / TEMPERATURE))


def l0(
    granularity: str = "weight",
    cost: float = 0.1,
    initial_drop_rate: float = 0.001,
    examples: int = 50_000,
    *,
    kernels: Patterns = KERNELS,
) -> MaskTransform:
    """L0 regularisation: every weight, or unit, has a hard-concrete gate with a trained location.

    Training draws the gates at each step and adds the expected number of open weights to the loss,
    `cost / examples * sum_j size_j * sigmoid(location_j - beta * log(-gamma / zeta))`. Evaluation multiplies by
    `clip(sigmoid(location) (zeta - gamma) + gamma, 0, 1)`, which removes weights whose gate is 0.

    Args:
      granularity: a gate per "weight" or per "unit"; `size_j` is 1 or the fan-in.
      cost: lambda; the paper's are 0.1 for weights and 0.01 for units.
      initial_drop_rate: p; locations start at N(log((1 - p) / p), 0.01^2). The paper: 0.001 (ResNet), 0.3 (WRN).
      examples: N, training examples.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` whose `gates` are `{path: location}`, float32, and whose `scores` are `log(1 + exp(location))`,
      in the order of `sigmoid(location)`.

    Raises:
      UserError: a number out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform, params = td.masks.l0(initial_drop_rate=0.5, kernels="w"), {"w": jnp.ones((40, 50))}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> masked, _ = transform.apply(params, mask_vars, key=jax.random.key(1), step=0)
      >>> bool((masked["w"] == 0).any()), bool((masked["w"] == 1).any())
      (True, True)

    Source: Louizos et al. 2018.
    """
    check_choice("granularity", granularity, criteria.OF_KERNELS)
    check_at_least("cost", cost)
    if not 0 < initial_drop_rate < 1:
        raise UserError(f"initial_drop_rate={initial_drop_rate} is out of range: give a number between 0 and 1")
    check_at_least("examples", examples, 1)

    def init(key: RandomKey, params: Params) -> MaskVars:
        middle = jnp.log((1 - initial_drop_rate) / initial_drop_rate)
        start = lambda *drawn: middle + 0.01 * jax.random.normal(*drawn)  # noqa: E731
        return MaskVars(gates=draw_entries(start, key, params, granularity, kernels))

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        locations = carried(mask_vars.gates)
        keys = {} if key is None else kernel_keys(key, step, locations)

        def gated(path: str, matrix: Array) -> Array:
            location = locations[path]
            gate = _stretch(jax.nn.sigmoid(location)) if key is None else sample_gate(keys[path], location)
            return matrix * gate.astype(matrix.dtype)

        return map_kernels(gated, params, kernels), mask_vars

    def penalty(params: Params, gates: dict[str, Array], step: Step) -> Array:
        del step
        opened = {path: jax.nn.sigmoid(a - TEMPERATURE * jnp.log(-LOW / HIGH)) for path, a in gates.items()}
        sizes = {path: math.prod(view.shape) for path, view in find_kernels(params, kernels).items()}
        expected = [jnp.mean(chance) * sizes[path] for path, chance in opened.items()]
        return jnp.float32(cost / examples) * sum(expected, start=jnp.zeros((), jnp.float32))

    def scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        del params
        # The order of the sigmoid, which float32 rounds to 1 above 17.
        return {path: jax.nn.softplus(location) for path, location in mask_vars.gates.items()}

    return MaskTransform(init, apply, penalty, scores, kernels=kernels)
