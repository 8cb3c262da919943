"""The one interface of the library: a method is six pure functions of the parameter tree.

A *mask transform* stands between the stored parameters and the loss. The model never sees it and the
optimiser never sees it; both only see parameters. Every mask in this package is a *keep*-mask: True = kept.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

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

Share = float | Array | Schedule
"""A share in [0, 1]: a number, a traced scalar or a function of the step."""

RandomKey = Key[Array, ""] | UInt32[Array, "2"]
"""One key, as `jax.random.key` or as `jax.random.PRNGKey` makes it."""

Step = int | Int[Array, ""]
"""The number of finished optimiser steps."""

StepCount = Annotated[int, "steps"]
"""A length in steps, of a method that has a schedule; configs give it as a duration with a unit."""


class MaskVars(NamedTuple):
    """What a method carries beside the parameters.

    Attributes:
      gates: a pytree trained together with the parameters by the same optimiser; () for most methods.
      stats: a pytree carried from step to step that receives no gradient; () for most methods.
    """

    gates: Any = ()
    stats: Any = ()


@runtime_checkable
class Init(Protocol):
    """Type of `MaskTransform.init`."""

    def __call__(self, key: RandomKey, params: Params) -> MaskVars: ...


class Apply(Protocol):
    """Type of `MaskTransform.apply`."""

    def __call__(
        self, params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step
    ) -> tuple[Params, MaskVars]: ...


class Penalty(Protocol):
    """Type of `MaskTransform.penalty`."""

    def __call__(self, params: Params, gates: Any, step: Step) -> Array: ...


class Scores(Protocol):
    """Type of `MaskTransform.scores`."""

    def __call__(self, params: Params, mask_vars: MaskVars) -> dict[str, Array]: ...


def carried(part: Any) -> Any:
    """The gates or stats of a method that has some; a UserError where `init` has not made them."""
    if isinstance(part, tuple) and not part:
        raise UserError("this method carries more than td.MaskVars(): give mask_vars = transform.init(key, params)")
    return part


def no_vars(key: RandomKey, params: Params) -> MaskVars:
    """The `init` of a method that carries nothing."""
    del key, params
    return MaskVars()


def no_penalty(params: Params, gates: Any, step: Step) -> Array:
    """The `penalty` of a method that adds nothing to the loss."""
    del params, gates, step
    return jnp.zeros((), jnp.float32)


def no_scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
    """The `scores` of a method with no ranking of its own: pruning then ranks by magnitude."""
    del params, mask_vars
    return {}


class Prune(Protocol):
    """Type of `MaskTransform.prune`."""

    def __call__(self, params: Params, mask_vars: MaskVars) -> Params: ...


def no_prune(params: Params, mask_vars: MaskVars) -> Params:
    """The `prune` of a method that removes nothing for good."""
    del mask_vars
    return params


class Context(Protocol):
    """Type of `MaskTransform.context`."""

    def __call__(
        self, params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step
    ) -> AbstractContextManager[Any]: ...


def no_context(
    params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step
) -> AbstractContextManager[None]:
    """The `context` of a method that acts on parameters alone."""
    del params, mask_vars, key, step
    return nullcontext()


class MaskTransform(NamedTuple):
    """A sparsifying method.

    Attributes:
      init: `(key, params) -> MaskVars`.
      apply: `(params, mask_vars, *, key, step) -> (params, mask_vars)`, the parameters as the forward pass
        sees them. Call it *inside* the loss, so that dropped weights get no gradient. `key=None` is
        evaluation. The same key may be given at every step: the step is folded into it. Carry the second value to
        the next step: masks and switches that change during training are in it.
      penalty: `(params, gates, step) -> scalar`, added to the loss.
      scores: `(params, mask_vars) -> {path: importance}`, non-negative, higher = kept longer, one array
        `[fan_in, units]` (or `[1, units]`) per kernel that the method ranks itself. A kernel that is left
        out is ranked by magnitude.
      prune: `(params, mask_vars) -> params`, the stored parameters without what the method has removed for good.
        Call it after `init` and after every optimiser update, and no momentum or weight decay brings it back.
      context: `(params, mask_vars, *, key, step) -> context manager` in which a training step calls the model, with
        the arguments that `apply` was given. Only a method that acts on pre-activations needs it.
      kernels: the kernels that the method masks, so that `td.prune_mask(params, rate, kernels=transform)` removes from
        the same ones; None where it names none.
    """

    init: Init
    apply: Apply
    penalty: Penalty = no_penalty
    scores: Scores = no_scores
    prune: Prune = no_prune
    context: Context = no_context
    kernels: Any = None


def identity() -> MaskTransform:
    """The method that does nothing: ordinary training.

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

    `apply` and `prune` are the compositions, each member with a key of its own; `penalty` is the sum; `scores` are
    those of every member on the parameters as the members before it leave them at evaluation (at step 0), the last
    word per kernel; `context` is that of every member, the last one innermost.

    Args:
      *transforms: the members. None at all is `identity`. One that acts on the outputs of layers must be the last: what
        comes after it would change weights whose noise is already counted.

    Returns:
      A `MaskTransform` whose `gates` and `stats` are tuples, one entry a member.

    Raises:
      UserError: a member with a `context` of its own is not the last.

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

    def split(mask_vars: MaskVars) -> list[MaskVars]:
        if transforms:
            carried(mask_vars.gates)
        return [MaskVars(*pair) for pair in zip(mask_vars.gates, mask_vars.stats, strict=True)]

    def join(members: list[MaskVars]) -> MaskVars:
        return MaskVars(tuple(m.gates for m in members), tuple(m.stats for m in members))

    def init(key: RandomKey, params: Params) -> MaskVars:
        return join([t.init(jax.random.fold_in(key, i), params) for i, t in enumerate(transforms)])

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        members = []
        for i, (transform, member) in enumerate(zip(transforms, split(mask_vars), strict=True)):
            member_key = None if key is None else jax.random.fold_in(key, i)
            params, member = transform.apply(params, member, key=member_key, step=step)
            members.append(member)
        return params, join(members)

    def penalty(params: Params, gates: Any, step: Step) -> Array:
        terms = [t.penalty(params, g, step) for t, g in zip(transforms, gates, strict=True)]
        return sum(terms, start=jnp.zeros((), jnp.float32))

    def scores(params: Params, mask_vars: MaskVars) -> dict[str, Array]:
        merged: dict[str, Array] = {}
        for transform, member in zip(transforms, split(mask_vars), strict=True):
            merged |= transform.scores(params, member)
            params, _ = transform.apply(params, member, key=None, step=0)
        return merged

    def prune(params: Params, mask_vars: MaskVars) -> Params:
        for transform, member in zip(transforms, split(mask_vars), strict=True):
            params = transform.prune(params, member)
        return params

    @contextmanager
    def context(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> Iterator[None]:
        with ExitStack() as stack:
            for i, (transform, member) in enumerate(zip(transforms, split(mask_vars), strict=True)):
                member_key = None if key is None else jax.random.fold_in(key, i)
                stack.enter_context(transform.context(params, member, key=member_key, step=step))
                params, _ = transform.apply(params, member, key=member_key, step=step)
            yield

    return MaskTransform(init, apply, penalty, scores, prune, context, kernels=transforms)
