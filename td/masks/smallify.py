"""Smallify: trained switches that turn off permanently once their sign fluctuates."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from td import _tree, criteria
from td._entries import draw_entries, entries_of
from td.base import MaskTransform, MaskVars, Params, RandomKey, Step, carried
from td.errors import check_at_least, check_choice, check_fraction
from td.kernels import KERNELS, Patterns, map_kernels, matrices


class Switches(NamedTuple):
    """State of the switches of one kernel."""

    alive: Bool[Array, "rows units"]  # never True again once False
    average: Float[Array, "rows units"]  # moving average of the switch's sign
    variance: Float[Array, "rows units"]  # moving variance of the sign


def observe(
    switch: Float[Array, "rows units"], state: Switches, decay: float = 0.9, threshold: float = 0.5
) -> Switches:
    """Update the state of switches, all from its old values (Leclerc et al. 2018, section 3)."""
    sign = jnp.sign(switch)
    difference = sign - state.average
    return Switches(
        alive=state.alive & (state.variance < threshold),
        average=decay * state.average + (1 - decay) * sign,
        variance=decay * state.variance + (1 - decay) * jnp.square(difference),
    )


def smallify(
    granularity: str = "weight",
    cost: float = 1e-5,
    decay: float = 0.9,
    threshold: float = 0.5,
    *,
    kernels: Patterns = KERNELS,
) -> MaskTransform:
    """Smallify: `W * switch * alive` with the penalty `cost * sum |switch|`.

    The penalty drives a useless switch to zero, where its sign flips. Once the moving variance of the sign reaches
    `threshold`, the switch is off permanently.

    Args:
      granularity: a switch per "weight" or per "unit".
      cost: lambda; the paper's are 1e-5 for weights and 1e-4 for units.
      decay: of the moving averages of the sign.
      threshold: the variance at which a switch turns off.
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` whose `gates` are `{path: switch}`, starting uniformly in [0, 1), and whose `stats` are
      `{path: Switches}`, updated by every `apply` with a key. `scores` are `|W * switch * alive|`; `prune` removes
      weights whose switch is off.

    Raises:
      UserError: a number out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform, params = td.masks.smallify("unit", kernels="w"), {"w": jnp.ones((4, 2))}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> masked, _ = transform.apply(params, mask_vars, key=None, step=0)
      >>> bool((masked["w"][0] == mask_vars.gates["w"][0]).all())
      True

    Source: Leclerc et al. 2018; constants: Gomez et al. 2019, Table 6, and its code.
    """
    check_choice("granularity", granularity, criteria.OF_KERNELS)
    check_at_least("cost", cost)
    check_fraction("decay", decay)
    check_at_least("threshold", threshold)

    def init(key: RandomKey, params: Params) -> MaskVars:
        switches = draw_entries(jax.random.uniform, key, params, granularity, kernels)
        first = {
            path: Switches(jnp.ones(switch.shape, bool), jnp.sign(switch), jnp.zeros_like(switch))
            for path, switch in switches.items()
        }
        return MaskVars(switches, first)

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        del step
        stats = carried(mask_vars.stats)
        if key is not None:
            stats = {path: observe(mask_vars.gates[path], state, decay, threshold) for path, state in stats.items()}
            stats = jax.lax.stop_gradient(stats)

        mask_vars = mask_vars._replace(stats=stats)
        return map_kernels(partial(switched, mask_vars), params, kernels), mask_vars

    def switched(mask_vars: MaskVars, path: str, matrix: Array) -> Array:
        gate = jnp.where(mask_vars.stats[path].alive, mask_vars.gates[path], 0.0)
        return matrix * gate.astype(matrix.dtype)

    def penalty(params: Params, gates: dict[str, Array], step: Step) -> Array:
        del params, step
        magnitudes = [jnp.sum(jnp.abs(switch)) for switch in gates.values()]
        return jnp.float32(cost) * sum(magnitudes, start=jnp.zeros((), jnp.float32))

    def scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        return {path: jnp.abs(switched(mask_vars, path, matrix)) for path, matrix in matrices(params, kernels).items()}

    def prune_stored(params: Params, mask_vars: MaskVars) -> Params:
        alive = {path: state.alive for path, state in carried(mask_vars.stats).items()}
        return _tree.replace_leaves(params, entries_of(params, granularity, kernels).masked(alive))

    return MaskTransform(init, apply, penalty, scores, prune_stored, kernels=kernels)
