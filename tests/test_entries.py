"""What a method draws at its start."""

import jax
import jax.numpy as jnp

import td

KEY = jax.random.key(7)


def test_init_and_the_first_step_draw_differently_from_one_key():
    transform, params = td.masks.random_targets("weight", 0.5, 0.5, kernels=".*"), {"w": jnp.ones((100, 100))}
    seen, _ = transform.apply(params, transform.init(KEY, params), key=KEY, step=0)
    assert abs(float(td.sparsity(seen, kernels=".*").total) - 0.25) < 0.025
