"""Loops and choices of the fuzzer's grammar."""

from functools import reduce

import jax
import jax.numpy as jnp
from fuzz_operations import ACTIVATIONS
from jax import lax


def recurrence(d, shape):
    if len(shape) != 2:
        return None
    u = d.kernel(shape[-1], shape[-1])
    step = lambda u, state, now: (jnp.tanh(now + state @ u),) * 2  # noqa: E731
    return lambda p, v: lax.scan(lambda *a: step(p[u], *a), v[:, 0], v.swapaxes(0, 1))[1].swapaxes(0, 1)


def layers(d, shape):
    a, b, c = d.kernel(3, shape[-1], 4), d.vector((3, 4)), d.kernel(3, 4, shape[-1])
    act, reverse = ACTIVATIONS[d.choice("relu", "tanh", "softplus", "rounded")], d.choice(False, True)
    layer = lambda v, a, b, c: v + act(v @ a + b) @ c  # noqa: E731
    stacks = lambda p: (p[a], p[b], p[c])  # noqa: E731
    step = lambda v, now: (layer(v, *now), v)  # noqa: E731
    return d.choice(
        lambda p, v: lax.scan(step, v, stacks(p), reverse=reverse)[0],
        lambda p, v: lax.scan(step, v, stacks(p), reverse=reverse)[1].mean(0),
        lambda p, v: reduce(lambda v, i: layer(v, *(stack[i] for stack in stacks(p))), range(3), v),
        lambda p, v: lax.fori_loop(0, 3, lambda i, v: layer(v, *(stack[i] for stack in stacks(p))), v),
        lambda p, v: lax.fori_loop(0, 2, lambda i, v: lax.scan(step, v, stacks(p))[0] / (i + 2), v),
    )


def repeated(d, shape):
    """A loop that ends by its counter or by its values; it has no derivative, so it is a constant to the loss."""
    a, b, first = d.kernel(shape[-1], shape[-1]), d.vector(shape[-1]), int(d.rng.integers(shape[-1]))
    more = d.choice(lambda i, v: i < 3, lambda i, v: (i < 5) & (jnp.abs(v[..., first]).max() < 4))
    step = lambda p, v: jnp.tanh(v @ p[a]) + v + p[b]  # noqa: E731
    loop = lambda p, v: lax.while_loop(lambda s: more(*s), lambda s: (s[0] + 1, step(p, s[1])), (0, v))[1]  # noqa: E731
    return lambda p, v: v + loop(lax.stop_gradient(p), lax.stop_gradient(v))


def branch(d, shape):
    """One of two kernels for the whole batch, or for every example."""
    a, b, first = d.kernel(shape[-1], 5), d.kernel(shape[-1], 5), int(d.rng.integers(shape[-1]))
    cases = lambda p: [lambda v: jax.nn.relu(v @ p[a]), lambda v: v @ p[b], lambda v: jnp.tanh(v @ p[a])]  # noqa: E731
    number = lambda v: (jnp.abs(v[..., first]).max() * 5).astype(int) % 3  # noqa: E731
    chosen = lambda p, v: lax.switch(number(v), cases(p), v)  # noqa: E731
    return d.choice(chosen, lambda p, v: lax.map(lambda v: chosen(p, v), v))
