"""The one interface of the library: a method is six pure functions of the parameter tree.

A *mask transform* stands between the stored parameters and the loss. Models and optimisers do not change. Every
mask in this package is a *keep*-mask: True = kept.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

from td.errors import UserError

AnyArray = Array | np.ndarray
"""On the host, or on a device."""

Params = Any
"""Any pytree of arrays: a Flax dict, an `nnx` state, tuples, lists, with or without None."""

Schedule = Callable[[Array], Array | float]
"""An optax-style function of the step."""

Fraction = float | Array | Schedule
"""A proportion in [0, 1]: a number, a traced scalar or a function of the step."""

RandomKey = Key[Array, ""] | UInt32[Array, "2"]
"""One key, made by `jax.random.key` or `jax.random.PRNGKey`."""

Step = int | Int[Array, ""]
"""The number of finished optimiser steps."""

StepCount = Annotated[int, "steps"]
"""A number of steps in a method's schedule; configs give it as a duration with a unit."""


class MaskVars(NamedTuple):
    """Variables of a method in addition to the parameters.

    Attributes:
      gates: a pytree trained with the parameters by the same optimiser; () for most methods.
      stats: a pytree carried from step to step without gradient; () for most methods.
    """

    gates: Any = ()
    stats: Any = ()


class Apply(Protocol):
    """Type of `MaskTransform.apply`."""

    def __call__(
        self, params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step
    ) -> tuple[Params, MaskVars]: ...


class Context(Protocol):
    """Type of `MaskTransform.context`."""

    def __call__(
        self, params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step
    ) -> AbstractContextManager[Any]: ...


Init = Callable[[RandomKey, Params], MaskVars]
Penalty = Callable[[Params, Any, Step], Array]
Scores = Callable[[Params, MaskVars], dict[str, Array]]
Prune = Callable[[Params, MaskVars], Params]


def carried(part: Any) -> Any:
    """Return a method's gates or stats; raises UserError if `init` has not made them."""
    if isinstance(part, tuple) and not part:
        raise UserError("this method carries more than td.MaskVars(): give mask_vars = transform.init(key, params)")
    return part


def no_vars(key: RandomKey, params: Params) -> MaskVars:
    """Default `init`: no variables."""
    del key, params
    return MaskVars()


def no_context(
    params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step
) -> AbstractContextManager[None]:
    """Default `context`: the method acts on parameters alone."""
    del params, mask_vars, key, step
    return nullcontext()


class MaskTransform(NamedTuple):
    """A sparsifying method.

    Attributes:
      init: `(key, params) -> MaskVars`.
      apply: `(params, mask_vars, *, key, step) -> (params, mask_vars)`, the parameters of the forward pass. Call it
        *inside* the loss, so that dropped weights get no gradient. `key=None` is evaluation. The key may be the same at
        every step, which is folded into it. Carry the second value, which holds masks and switches that change during
        training, to the next step.
      penalty: `(params, gates, step) -> scalar`, added to the loss.
      scores: `(params, mask_vars) -> {path: importance}`, non-negative, higher = kept longer, one array
        `[fan_in, units]` (or `[1, units]`) per kernel that the method ranks itself. Other kernels are ranked by
        magnitude.
      prune: `(params, mask_vars) -> params`, the stored parameters without what the method has removed permanently.
        Call it after `init` and every optimiser update, against momentum and weight decay.
      context: `(params, mask_vars, *, key, step) -> context manager` around the model's call in a training step, with
        the arguments of `apply`. Only a method that acts on pre-activations needs it.
      kernels: the patterns of the kernels that the method masks, for `td.prune_mask(params, rate, kernels=transform)`.
    """

    init: Init
    apply: Apply
    penalty: Penalty = lambda params, gates, step: jnp.zeros((), jnp.float32)
    scores: Scores = lambda params, mask_vars: {}
    prune: Prune = lambda params, mask_vars: params
    context: Context = no_context
    kernels: Any = None


def identity() -> MaskTransform:
    """Change nothing: ordinary training.

    Returns:
      A `MaskTransform` whose `apply` returns the parameters unchanged.

    Example:
      >>> import jax, td
      >>> transform = td.identity()
      >>> transform.apply({"w": 1.0}, transform.init(jax.random.key(0), {}), key=None, step=0)[0]
      {'w': 1.0}
    """

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        del key, step
        return params, mask_vars

    return MaskTransform(no_vars, apply)


def chain(*transforms: MaskTransform) -> MaskTransform:
    """Apply several methods, the first one first.

    `apply` and `prune` are compositions, with a key for each member; `penalty` is the sum. `scores` are those of every
    member on the parameters that the members before it return at evaluation, the last one's per kernel. Contexts are
    nested, the last one innermost.

    Args:
      *transforms: the members; none at all is `identity`. A member with a `context` must be the last: a later one would
        change weights whose noise is already counted.

    Returns:
      A `MaskTransform` whose `gates` and `stats` are tuples with one entry per member.

    Raises:
      UserError: a member with a `context` is not the last.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> half = td.random_prune(proportion=0.5, kernels="w")
      >>> transform = td.chain(half, td.targeted(target_proportion=0.5, drop_rate=1.0, kernels="w"))
      >>> params = {"w": jnp.ones((4, 2))}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> dropped, _ = transform.apply(params, mask_vars, key=jax.random.key(1), step=0)
      >>> float(td.sparsity(dropped, kernels=transform).total)
      0.5
    """

    if any(transform.context is not no_context for transform in transforms[:-1]):
        raise UserError("a method that acts on the outputs of layers must be the last of a chain: put it there")

    def members(mask_vars: MaskVars, key: RandomKey | None = None) -> list[tuple[MaskTransform, MaskVars, Any]]:
        if transforms:
            carried(mask_vars.gates)
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(len(transforms))]
        return list(zip(transforms, map(MaskVars, *mask_vars), keys, strict=True))

    def join(variables: list[MaskVars]) -> MaskVars:
        return MaskVars(tuple(own.gates for own in variables), tuple(own.stats for own in variables))

    def init(key: RandomKey, params: Params) -> MaskVars:
        return join([t.init(jax.random.fold_in(key, i), params) for i, t in enumerate(transforms)])

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        updated = []
        for transform, own, own_key in members(mask_vars, key):
            params, own = transform.apply(params, own, key=own_key, step=step)
            updated.append(own)
        return params, join(updated)

    def penalty(params: Params, gates: Any, step: Step) -> Array:
        terms = [t.penalty(params, own, step) for t, own in zip(transforms, gates, strict=True)]
        return sum(terms, start=jnp.zeros((), jnp.float32))

    def scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        merged: dict[str, Array] = {}
        for transform, own, _ in members(mask_vars):
            merged |= transform.scores(params, own)
            params, _ = transform.apply(params, own, key=None, step=0)
        return merged

    def prune(params: Params, mask_vars: MaskVars) -> Params:
        for transform, own, _ in members(mask_vars):
            params = transform.prune(params, own)
        return params

    @contextmanager
    def context(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> Iterator[None]:
        with ExitStack() as stack:
            for transform, own, own_key in members(mask_vars, key):
                stack.enter_context(transform.context(params, own, key=own_key, step=step))
                params, _ = transform.apply(params, own, key=own_key, step=step)
            yield

    return MaskTransform(init, apply, penalty, scores, prune, context, kernels=transforms)
