"""Targeted dropout of weights in a network and training loop without a library: python examples/plain_jax.py."""

import jax
import jax.numpy as jnp

import td


def network(params, inputs):
    hidden = jax.nn.relu(inputs @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["logits"]["w"]


def main(steps: int = 300) -> float:
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (256, 16))
    targets = jnp.sin(inputs[:, :1]) + inputs[:, 1:2] * inputs[:, 2:3]
    params = {
        "hidden": {"w": jax.random.normal(keys[1], (16, 64)) / 4, "b": jnp.zeros(64)},
        "logits": {"w": jax.random.normal(keys[2], (64, 1)) / 8},
    }
    structure = td.trace(network, params, inputs, include=("first",))  # only the last layer is left out
    print(structure)
    transform = td.targeted(granularity="weight", target_proportion=0.75, drop_rate=0.66, kernels=structure)
    mask_vars = transform.init(jax.random.key(1), params)

    def loss(params, step):
        masked, _ = transform.apply(params, mask_vars, key=jax.random.key(2), step=step)
        return jnp.mean((network(masked, inputs) - targets) ** 2)

    @jax.jit
    def update(params, step):
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, jax.grad(loss)(params, step))

    for step in range(steps):
        params = update(params, step)

    pruned = td.apply_mask(params, td.prune_mask(params, prune_rate=0.75, kernels=structure))
    error = jnp.mean((network(pruned, inputs) - targets) ** 2)
    zeros = float(td.sparsity(pruned, kernels=structure).total)
    print(f"{zeros:.0%} of the weights are zero; error {error:.3f}, variance {targets.var():.3f}")
    return zeros


if __name__ == "__main__":
    main()
