"""Operations of the fuzzer along one axis, and on part of one."""

import jax.numpy as jnp
from jax import lax


def along(d, shape):
    """What mixes the entries of one axis."""
    axis = d.choice(*range(1, len(shape) + 1))
    functions = (jnp.sort, jnp.cumsum, lax.cummax, jnp.cumprod, lambda v, axis: jnp.fft.fft(v, axis=axis).real)
    function = d.choice(*functions, lambda v, axis: jnp.take_along_axis(v, jnp.argsort(-v, axis), axis))
    return lambda p, v: function(v, axis=axis)


def written(d, shape):
    """Some rows or channels replaced by, or added to, those of another value."""
    axis, first = d.choice(*range(1, len(shape) + 1)), int(d.rng.integers(2))
    part = lambda v: lax.slice_in_dim(v, 0, max(v.shape[axis] - 1, 1), axis=axis)  # noqa: E731
    place = (slice(None),) * axis + (slice(first, first + max(shape[axis - 1] - 1, 1)),)
    moved = lambda v: (jnp.abs(v.ravel()[0]) * 2).astype(int)  # noqa: E731
    function = d.choice(
        lambda v, o: lax.dynamic_update_slice_in_dim(v, part(o), moved(v), axis),
        lambda v, o: v.at[place].add(o[place]),
        lambda v, o: v.at[(slice(None),) * axis + (0,)].set(jnp.take(o, -1, axis)),
        lambda v, o: v.at[(slice(None),) * axis + (0,)].multiply(2.0),
        lambda v, o: jnp.take_along_axis(v, jnp.abs(4 * o).astype(int) % shape[axis - 1], axis),
        lambda v, o: v / jnp.linalg.norm(o, axis=axis, keepdims=True),
    )
    return lambda p, v, o: function(v, o), d.other(lambda other: other == shape)
