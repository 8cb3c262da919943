"""Schedules of a method's numbers: functions `step -> value`, as in optax."""

import jax.numpy as jnp
from jaxtyping import Array

from td.base import Schedule, Step
from td.errors import UserError, check_fraction


def ramp(value: float, stage_steps: int, knee: float = 0.95) -> Schedule:
    """Rise linearly from 0 to `knee * value` over one stage, then to `value` over a second one of the same length.

    Ramping targeted dropout uses `ramp(gamma, n)` for the target proportion and `ramp(alpha, n, knee=0.5)`, a straight
    line over both stages, for the drop rate.

    Args:
      value: the final value, in [0, 1].
      stage_steps: the length of one stage in steps.
      knee: the fraction of `value` reached after the first stage.

    Returns:
      A function of the step.

    Raises:
      UserError: a number out of range.

    Example:
      >>> import td
      >>> schedule = td.ramp(0.9, stage_steps=100)
      >>> [round(float(schedule(step)), 4) for step in (0, 50, 100, 200, 900)]
      [0.0, 0.4275, 0.855, 0.9, 0.9]

    Source: Gomez et al. 2019, section 5.3 (ramping), completed from the original code.
    """
    check_fraction("value", value)
    check_fraction("knee", knee)
    if stage_steps < 1:
        raise UserError(f"stage_steps={stage_steps} is out of range: a ramp's stage is at least one step long")

    def schedule(step: Step) -> jnp.ndarray:
        # Not outside of this function: arrays made within jit would not outlive it.
        ends = jnp.array([0.0, stage_steps, 2.0 * stage_steps], jnp.float32)
        heights = jnp.array([0.0, knee * value, value], jnp.float32)
        return jnp.interp(jnp.asarray(step, jnp.float32), ends, heights)

    return schedule


def value_at(value: object, step: Step) -> Array:
    """Evaluate a number, or a schedule at the step, as a float32 scalar."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)
